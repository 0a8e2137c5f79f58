"""Names: extensions of image files, non-UTF-8 names as text, and labels as folder names."""

from __future__ import annotations

import os
import re
import string
from functools import lru_cache
from urllib.parse import unquote

from mission9.errors import ImageError

# Including formats that will be rejected: a rejected picture is reported, not lost.
# fmt: off
IMAGE_EXTENSIONS = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff",
    ".avif", ".heic", ".heif", ".jp2", ".j2k", ".jxl", ".ico", ".tga", ".ppm", ".pgm", ".pbm", ".pnm",
    ".psd", ".dng", ".eps", ".svg",
})
# fmt: on

_ESCAPE = re.compile(r"\\x[0-9a-f]{2}")
_ESCAPED = re.compile(rb"\\(\\|x[0-9a-f]{2})")

# The characters that Spark escapes in a partition's folder name (ExternalCatalogUtils.escapePathName), and that every
# reader of such folders therefore unescapes. Other characters, spaces and accents too, are unchanged.
_ESCAPED_IN_FOLDERS = frozenset("\"#%'*/:=?\\{[]^}\x7f") | {chr(code) for code in range(1, 0x20)}
_LONGEST_FOLDER_NAME = 255  # bytes, on every common file system
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def to_text(name: bytes) -> str:
    r"""A file's name or path as text; `from_text` reverses it.

    UTF-8 names are unchanged. In others each byte that is not UTF-8 is written `\xff` and each backslash doubled;
    so are the backslashes of a UTF-8 name that contains such an escape.
    """
    try:
        text = name.decode()
        if not _ESCAPE.search(text):
            return text
    except UnicodeDecodeError:
        pass
    return name.replace(b"\\", b"\\\\").decode(errors="backslashreplace")


def from_text(text: str) -> bytes:
    r"""The bytes of a name written by `to_text`."""
    encoded = text.encode()
    if not _ESCAPE.search(text):
        return encoded
    return _ESCAPED.sub(lambda m: b"\\" if m[1] == b"\\" else bytes.fromhex(m[1][1:].decode()), encoded)


def to_path(root: str, relative: str) -> bytes:
    """The path of the file that a listing calls `relative`, below `root`."""
    return os.path.join(os.fsencode(root), from_text(relative))


def label_of_folder(name: str) -> str:
    """The label that `label_folder` turned into a folder's name."""
    return unquote(name.removeprefix("label="))


@lru_cache(4096)
def label_folder(label: str, *, with_letters_escaped: bool = False) -> str:
    """The name of a label's partition folder, `label=...`, as Spark writes it.

    On a file system that does not distinguish two labels, such as "Apple" and "apple", the letters of the second may be
    escaped too: every reader unescapes them.

    Raises:
        ImageError: (`unusable_label`) the label is too long for a folder's name, or readers would take it for null.
    """
    if label == _HIVE_NULL:
        raise ImageError("unusable_label", f"readers of label folders take the label {label} for null: rename it")
    in_need = _ESCAPED_IN_FOLDERS | set(string.ascii_letters if with_letters_escaped else ())
    escaped = "".join(f"%{ord(c):02X}" if c in in_need else c for c in label)
    folder = f"label={escaped}"
    if len(folder.encode()) > _LONGEST_FOLDER_NAME:
        raise ImageError(
            "unusable_label", f"{folder[:40]}... exceeds the {_LONGEST_FOLDER_NAME} bytes of a folder name: shorten it"
        )
    return folder
