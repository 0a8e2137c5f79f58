"""Metadata in images are counted, and none of them gets into anything that a run makes or says."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

from mission9.cli import main
from mission9.decoding.metadata import MetadataReader, kinds_of
from mission9.errors import ImageError
from mission9.privacy.metadata_audit import audit_images

MAKER, ARTIST, WORDS, PLACE = "PlantedMaker", "PlantedArtist", "PlantedWords", "PlantedPlace"
LATITUDE = (48.0, 51.0, 29.987654)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><exif:GPSLatitude>PlantedPlace</exif:GPSLatitude></x:xmpmeta>'
PLAIN_XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><dc:creator>PlantedArtist</dc:creator></x:xmpmeta>'
IPTC = b"Photoshop 3.0\x008BIM\x04\x04\x00\x00\x00\x00\x00\x11\x1c\x02\x50\x00\x0cPlantedWords\x00"


def exif(*, gps: bool = True) -> Image.Exif:
    made = Image.Exif()
    made[ExifTags.Base.Make] = MAKER
    made[ExifTags.Base.Artist] = ARTIST
    if gps:
        place = made.get_ifd(ExifTags.IFD.GPSInfo)
        place[ExifTags.GPS.GPSLatitudeRef] = "N"
        place[ExifTags.GPS.GPSLatitude] = LATITUDE
        place[ExifTags.GPS.GPSAreaInformation] = PLACE.encode()
    return made


def encoded(kind: str, picture: Image.Image | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    (picture or Image.new("RGB", (32, 24), (200, 30, 30))).save(buffer, kind, **options)
    return buffer.getvalue()


def with_iptc(jpeg: bytes) -> bytes:
    return jpeg[:2] + b"\xff\xed" + struct.pack(">H", len(IPTC) + 2) + IPTC + jpeg[2:]


LARGE_XMP = zlib.compress(XMP + b" " * (2 << 20))


def with_chunk(png: bytes, name: bytes, content: bytes) -> bytes:
    """A PNG with a chunk behind its pixels."""
    chunk = struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    end = png.rindex(b"IEND") - 4
    return png[:end] + chunk + png[end:]


def png_text(key: str, text: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_itxt(key, text)
    return info


def tiff_tags(number: int, content: bytes) -> TiffImagePlugin.ImageFileDirectory_v2:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype[number] = 7
    tags[number] = content
    return tags


@pytest.mark.parametrize(
    ("make", "kinds"),
    [
        (lambda: encoded("JPEG"), ""),
        (lambda: encoded("JPEG", exif=exif(gps=False)), "exif"),
        (lambda: encoded("JPEG", exif=exif()), "exif gps"),
        (lambda: encoded("JPEG", comment=WORDS), "comment"),
        (lambda: encoded("JPEG", xmp=PLAIN_XMP), "xmp"),
        (lambda: encoded("JPEG", xmp=XMP), "xmp gps"),
        (lambda: with_iptc(encoded("JPEG")), "iptc"),
        (lambda: encoded("PNG"), ""),
        (lambda: encoded("PNG", exif=exif()), "exif gps"),
        (lambda: encoded("PNG", pnginfo=png_text("Comment", WORDS)), "comment"),
        (lambda: encoded("PNG", pnginfo=png_text("XML:com.adobe.xmp", XMP.decode())), "xmp gps"),
        (lambda: with_chunk(encoded("PNG"), b"eXIf", exif().tobytes()[6:]), "exif gps"),
        (lambda: with_chunk(encoded("PNG"), b"tEXt", b"Author\0PlantedArtist"), "comment"),
        (lambda: with_chunk(encoded("PNG"), b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LARGE_XMP), "xmp gps"),
        (lambda: encoded("WEBP"), ""),
        (lambda: encoded("WEBP", exif=exif()), "exif gps"),
        (lambda: encoded("WEBP", xmp=PLAIN_XMP), "xmp"),
        (lambda: encoded("TIFF"), ""),
        (lambda: encoded("TIFF", exif=exif().tobytes()), "exif gps"),
        (lambda: encoded("TIFF", tiffinfo=tiff_tags(700, PLAIN_XMP)), "xmp"),
        (lambda: encoded("TIFF", tiffinfo=tiff_tags(33723, IPTC[26:])), "iptc"),
        (lambda: encoded("GIF"), ""),
        (lambda: encoded("GIF", comment=WORDS), "comment"),
        (lambda: encoded("BMP"), ""),
    ],
)
def test_kinds(make: Callable[[], bytes], kinds: str) -> None:
    assert kinds_of(make()) == set(kinds.split())


def test_damaged_images_are_counted_and_harm_nobody(tmp_path: Path) -> None:
    whole = encoded("JPEG", exif=exif())
    for at in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        (tmp_path / f"{at}.jpg").write_bytes(damaged)
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.png").write_bytes(b"text")
    (tmp_path / "bomb.png").write_bytes(with_chunk(encoded("PNG"), b"eXIf", b"II*\0" + b"\xff" * 40))
    (tmp_path / "good.jpg").write_bytes(whole)
    found = audit_images(str(tmp_path))
    assert found.images == len(list(tmp_path.iterdir()))
    assert found.unreadable >= 3
    assert found.kinds["gps"] >= 1


def test_an_image_that_ends_the_child_costs_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with MetadataReader() as reader:
        assert reader.kinds(encoded("JPEG", exif=exif())) == {"exif", "gps"}
        assert reader._process is not None
        reader._process.kill()
        with pytest.raises(ImageError, match="took too much time"):
            reader.kinds(encoded("JPEG"))
        assert reader.kinds(encoded("GIF", comment=WORDS)) == {"comment"}


@pytest.fixture
def located(tmp_path: Path, pictures: list[bytes]) -> Path:
    """Twelve photographs of two labels; each tells in every way who made it, and where. And one that is damaged."""
    root = tmp_path / "photos"
    for number, jpeg in enumerate([*pictures, *pictures[:2]]):
        picture = Image.open(io.BytesIO(jpeg))
        folder = root / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        if number % 3:
            data = with_iptc(encoded("JPEG", picture, exif=exif(), xmp=XMP, comment=WORDS, quality=95))
            (folder / f"{number}.jpg").write_bytes(data)
        else:
            (folder / f"{number}.png").write_bytes(
                encoded("PNG", picture, exif=exif(), pnginfo=png_text("Comment", WORDS))
            )
    (root / "a/cut.jpg").write_bytes(with_iptc(encoded("JPEG", picture, exif=exif(), xmp=XMP, comment=WORDS))[:-300])
    return root


def test_the_command_counts_and_tells_no_name(located: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(located), "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts == {
        "images": 13,
        "carriers": 13,
        "unreadable": 0,
        "kinds": {"exif": 13, "gps": 13, "xmp": 9, "iptc": 9, "comment": 13},
    }
    assert main(["audit", str(located)]) == 0
    words = capsys.readouterr().out
    assert "13 of 13 images carry metadata" in words
    assert ".jpg" not in words


def everything_in(file: Path) -> bytes:
    """A file as it lies there, as its readers have it, and the pictures in it."""
    content = [file.read_bytes()]
    if file.suffix == ".parquet":
        with pq.ParquetFile(file) as table:
            content += [repr(table.metadata.metadata).encode(), repr(table.read().to_pylist()).encode()]
    for sheet in re.findall(rb'"(/9j/[A-Za-z0-9+/=]{100,})"', content[0]):
        content.append(base64.b64decode(sheet))
    return b"".join(content)


@pytest.mark.slow
def test_no_metadata_get_into_what_a_run_makes_or_says(
    located: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    options = ["--input", str(located), "--output", str(output), "--weights", "demo", "--components", "3"]
    assert main(["run", *options, "--max-reject-rate", "0.5"]) == 0
    told = capfd.readouterr()
    log = [sys.executable, "-m", "mission9", "log", str(output), "--mlflow", "local"]
    logged = subprocess.run(log, cwd=tmp_path, capture_output=True, check=True)
    assert "12 featured" in told.out
    files = [path for path in tmp_path.rglob("*") if path.is_file() and located not in path.parents]
    names = {path.name for path in files}
    assert {"report.html", "run.json", "part-00000.csv", "mlflow.db"} <= names
    assert len([path for path in files if "mlruns" in path.parts]) > 3
    planted = [text.encode() for text in (MAKER, ARTIST, WORDS, PLACE, "exif:GPSL", "29.98765")]
    assert sum(word in (located / "a/4.jpg").read_bytes() for word in planted) >= 5  # the search finds them
    page = everything_in(output / "report.html")
    assert page.count(b"JFIF") > 0
    assert b"Exif\x00\x00" not in page
    said = b"".join((told.out.encode(), told.err.encode(), logged.stdout, logged.stderr))
    for where, content in [("what it says", said), *((path, everything_in(path)) for path in files)]:
        assert not [word for word in planted if word in content], where
