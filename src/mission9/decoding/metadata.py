"""Encoded images -> the kinds of metadata in them, read in a child process without decoding pixels.

An image that kills the child, or exceeds its time limit, costs only itself. The child answers in JSON.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self, get_args

from PIL import ExifTags, ImageFile, IptcImagePlugin
from PIL.Image import Exif

from mission9._package import python_path
from mission9.decoding.decode import open_image
from mission9.decoding.formats import load_decoders
from mission9.decoding.png_chunks import PNG_SIGNATURE, PNG_TEXTS, inflated
from mission9.errors import ImageError
from mission9.options import MAX_PIXELS

Kind = Literal["exif", "gps", "xmp", "iptc", "comment"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_TIME_LIMIT = 10.0  # seconds for an image
_MEMORY = 4 * 2**30  # bytes for the largest image and its unpacked metadata
_LENGTH = struct.Struct("<Q")

# A TIFF consists of tags; among Pillow's EXIF tags, these describe more than the layout of its pixels.
_TELLING = frozenset(
    (
        *(ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.Software),
        *(ExifTags.Base.DateTime, ExifTags.Base.Artist, ExifTags.Base.HostComputer, ExifTags.Base.Copyright),
        *(ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo),
    )
)
_XMP_TAG, _IPTC_TAG = 700, 33723

_MAX_TEXT = 64 * 2**20  # bytes of a PNG's text


def kinds_of(data: bytes) -> set[Kind]:
    """The kinds of metadata in an encoded image.

    Raises:
        ImageError: it is not an image, or its format is not supported.
    """
    image = open_image(data, max_pixels=MAX_PIXELS)
    assert isinstance(image, ImageFile.ImageFile)  # noqa: S101 (for mypy: an opened image always is)
    try:
        return _kinds(image, data)
    except Exception as error:  # parsers raise any kind of exception on damaged data
        raise ImageError("corrupt", f"its metadata cannot be read: {str(error) or type(error).__name__}") from error


def _kinds(image: ImageFile.ImageFile, data: bytes) -> set[Kind]:
    tags: dict[int, Any] = dict(getattr(image, "tag_v2", {}))
    info: dict[Any, Any] = image.info
    exif = image.getexif()
    xmp = info.get("xmp") or info.get("XML:com.adobe.xmp") or tags.get(_XMP_TAG) or b""
    found: set[Kind] = set()
    if _has_exif(image, exif):
        found.add("exif")
    if exif.get_ifd(ExifTags.IFD.GPSInfo) or b"GPSL" in (xmp.encode() if isinstance(xmp, str) else bytes(xmp)):
        found.add("gps")
    if xmp:
        found.add("xmp")
    if _IPTC_TAG in tags or IptcImagePlugin.getiptcinfo(image):
        found.add("iptc")
    if info.get("comment"):
        found.add("comment")
    return found | _kinds_of_chunks(data) if data.startswith(PNG_SIGNATURE) else found


def _has_exif(image: ImageFile.ImageFile, exif: Exif) -> bool:
    if image.format == "TIFF":
        return bool(_TELLING.intersection(exif))
    if image.format == "AVIF":  # Pillow itself adds the orientation, which is that of the container
        return bool(set(exif) - {ExifTags.Base.Orientation})
    return len(exif) > 0 or image.info.get("exif") is not None


def _kinds_of_chunks(data: bytes) -> set[Kind]:
    """The kinds in a PNG's chunks, including those after its pixels, which Pillow reads only when it decodes them."""
    found: set[Kind] = set()
    for name, content in _chunks(data):
        if name == b"eXIf":
            exif = Exif()
            exif.load(content)
            found |= {"exif", "gps"} if exif.get_ifd(ExifTags.IFD.GPSInfo) else {"exif"}
        elif name in PNG_TEXTS:
            text = inflated(name, content, _MAX_TEXT)
            if text is None:
                raise ValueError("a text is damaged, or exceeds the limit")
            found.add("xmp" if text.startswith(b"XML:com.adobe.xmp") else "comment")
            found |= {"gps"} if b"GPSL" in text else set()
    return found


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(PNG_SIGNATURE)
    while at + 8 <= len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        yield name, data[at + 8 : at + 8 + length] if name != b"IDAT" else b""
        at += length + 12


class MetadataReader:
    """Reads metadata in a child process, restarted if an image kills it; for one thread."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def kinds(self, data: bytes) -> set[Kind]:
        """The kinds of metadata in an encoded image.

        Raises:
            ImageError: it cannot be read.
        """
        process = self._process = self._process or _start()
        assert process.stdin is not None  # noqa: S101 (for mypy)
        assert process.stdout is not None  # noqa: S101 (for mypy)
        try:
            process.stdin.write(_LENGTH.pack(len(data)) + data)
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            if "message" in answer:
                raise ImageError("corrupt", str(answer["message"]))
            return {kind for kind in KINDS if kind in answer["kinds"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._end()
            raise ImageError("decoder_crashed", "reading its metadata took too much time or memory") from error

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with suppress(OSError):  # the child may be gone
                process.communicate()


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-P", "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": python_path()},
    )


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests in the child until the parent is gone."""
    while len(head := requests.read(_LENGTH.size)) == _LENGTH.size:
        data = requests.read(_LENGTH.unpack(head)[0])
        signal.setitimer(signal.ITIMER_REAL, _TIME_LIMIT)  # its signal ends the process, even in C code
        try:
            answer: dict[str, Any] = {"kinds": sorted(kinds_of(data))}
        except (ImageError, MemoryError) as error:
            answer = {"message": str(error) or "it takes too much memory"}
        signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def main() -> None:
    """Run `python -m mission9.decoding.metadata`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends this process
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    load_decoders()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
