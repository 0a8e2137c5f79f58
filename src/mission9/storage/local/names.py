"""Names: which promise an image, those that are not UTF-8 as text, and labels as folder names."""

from __future__ import annotations

import os
import re
import string
from urllib.parse import unquote

from mission9.errors import ImageError

# Those of formats that will be rejected too: a rejected picture is told, not lost.
# fmt: off
IMAGE_EXTENSIONS = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff",
    ".avif", ".heic", ".heif", ".jp2", ".j2k", ".jxl", ".ico", ".tga", ".ppm", ".pgm", ".pbm", ".pnm",
    ".psd", ".dng", ".eps", ".svg",
})
# fmt: on

_ESCAPE = re.compile(r"\\x[0-9a-f]{2}")
_ESCAPED = re.compile(rb"\\(\\|x[0-9a-f]{2})")

# What Spark escapes in a partition's folder name (ExternalCatalogUtils.escapePathName), and so what
# every reader of such folders takes back. Other characters, spaces and accents too, stay as they are.
_ESCAPED_IN_FOLDERS = frozenset("\"#%'*/:=?\\{[]^}\x7f") | {chr(code) for code in range(1, 0x20)}
_LONGEST_FOLDER_NAME = 255  # bytes, on every common file system
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def to_text(name: bytes) -> str:
    r"""A file's name or path as text; `from_text` gives the bytes back.

    Names in UTF-8 are themselves. In others each byte that is not UTF-8 is written `\xff` and each backslash doubled;
    so are the backslashes of a name that would look like such a one.
    """
    try:
        text = name.decode()
        if not _ESCAPE.search(text):
            return text
    except UnicodeDecodeError:
        pass
    return name.replace(b"\\", b"\\\\").decode(errors="backslashreplace")


def from_text(text: str) -> bytes:
    r"""The bytes of a name that `to_text` wrote."""
    encoded = text.encode()
    if not _ESCAPE.search(text):
        return encoded
    return _ESCAPED.sub(lambda m: b"\\" if m[1] == b"\\" else bytes.fromhex(m[1][1:].decode()), encoded)


def to_path(root: str, relative: str) -> bytes:
    """Return where the file that a listing calls `relative` lies, below `root`."""
    return os.path.join(os.fsencode(root), from_text(relative))


def label_of_folder(name: str) -> str:
    """The label that `label_folder` named a folder by."""
    return unquote(name.removeprefix("label="))


def label_folder(label: str, *, with_letters_escaped: bool = False) -> str:
    """`label=...`, as Spark names a partition's folder.

    Where a file system takes two labels for one, as "Apple" and "apple", the letters of the second may be escaped too:
    every reader takes them back.

    Raises:
        ImageError: (`unusable_label`) no folder can carry the label, or readers would take it for null.
    """
    if label == _HIVE_NULL:
        raise ImageError("unusable_label", f"the label {label} means null to every reader of label folders; rename it")
    in_need = _ESCAPED_IN_FOLDERS | set(string.ascii_letters if with_letters_escaped else ())
    escaped = "".join(f"%{ord(c):02X}" if c in in_need else c for c in label)
    folder = f"label={escaped}"
    if len(folder.encode()) > _LONGEST_FOLDER_NAME:
        raise ImageError(
            "unusable_label", f"{folder[:40]}... is longer than the {_LONGEST_FOLDER_NAME} bytes of a name"
        )
    return folder
