from __future__ import annotations

import io
import struct
import time
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mission9.decoding.decode import decode_image, to_rgb
from mission9.errors import REASONS, ImageError
from mission9.models.preprocess import INPUT_CHANNELS, to_input
from tests.support.mutate import blocks_of, fields_of, mutate
from tests.support.seeds import Seed, make_seeds

SEEDS = make_seeds()
BEGINNINGS = sorted({seed.data[:length] for seed in SEEDS for length in (2, 4, 12, 30)})

LIMIT = 1_000_000


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> np.ndarray:
    image = decode_image(data, max_pixels=LIMIT)
    assert image.mode == "RGB"
    return np.asarray(image)


def reason(data: bytes, limit: int = LIMIT) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, max_pixels=limit)
    return caught.value.reason


@pytest.fixture
def photo(pictures: list[bytes]) -> Image.Image:
    return Image.open(io.BytesIO(pictures[0]))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "GIF"])
def test_lossless_formats_give_the_very_pixels(kind: str) -> None:
    image = Image.new("RGB", (8, 4), (200, 10, 30))
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(decoded(encoded(image, kind, **options)), np.asarray(image))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK"])
def test_other_modes_become_the_same_picture_in_rgb(mode: str, photo: Image.Image) -> None:
    picture = photo.convert(mode)
    np.testing.assert_array_equal(decoded(encoded(picture, "TIFF")), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_transparency_lies_over_white_whatever_it_hides(kind: str) -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = (255, 0, 0, 255)
    pixels[0, 1] = (9, 99, 199, 0)  # junk that nobody should see
    pixels[1, 0] = (0, 0, 0, 128)
    found = decoded(encoded(Image.fromarray(pixels), kind))
    assert found[0, 0].tolist() == [255, 0, 0]
    assert found[0, 1].tolist() == found[1, 1].tolist() == [255, 255, 255]
    assert abs(int(found[1, 0, 0]) - 127) <= 1


def test_palette_and_grey_with_transparency() -> None:
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((1, 0), 1)
    assert decoded(encoded(palette, "PNG", transparency=1))[0].tolist() == [[255, 0, 0], [255, 255, 255]]
    grey = Image.fromarray(np.array([[[10, 255], [10, 0]]], np.uint8))
    assert decoded(encoded(grey, "PNG"))[0].tolist() == [[10] * 3, [255] * 3]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_and_never_flat_white(kind: str) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(ramp), kind))[..., 0].ravel(), np.arange(256))


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[0, 100, 255]], np.float32), [0, 100, 255]),
        (np.array([[0, 65535, 257]], np.int32), [0, 255, 1]),
        (np.array([[-100, 20, 100]], np.int32), [0, 153, 255]),
        (np.array([[0, np.nan, 1]], np.float32), [0, 0, 255]),
    ],
)
def test_32_bits_are_scaled_by_the_range_they_use(values: NDArray[Any], wanted: list[int]) -> None:
    assert decoded(encoded(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == wanted


def test_animations_give_their_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert decoded(data)[0, 0].tolist() == [255, 0, 0], kind


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, photo: Image.Image) -> None:
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # how a camera held like this has stored the picture
    stored = photo.transpose(Image.Transpose(turn[orientation])) if orientation in turn else photo
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decoded(encoded(stored, "PNG", exif=exif))
    np.testing.assert_array_equal(found, np.asarray(photo))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_metadata_does_not_reject_a_picture(pictures: list[bytes]) -> None:
    data = pictures[0]
    broken = (
        data[:2] + b"\xff\xe1" + struct.pack(">H", 20) + b"Exif\0\0MM\0*\xff\xff\xff\xff\xff\xff\xff\xff" + data[2:]
    )
    np.testing.assert_array_equal(decoded(broken), decoded(data))


def chunk(name: bytes, body: bytes, *, is_whole: bool = True) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body) ^ (not is_whole))


def with_chunk(png: bytes, new: bytes, before: bytes) -> bytes:
    at = png.index(before) - 4
    return png[:at] + new + png[at:]


LARGE = zlib.compress(b"A" * (2 << 20))
ORNAMENTS = {
    "large text": chunk(b"zTXt", b"XML:xmp\0\0" + LARGE),
    "large international text": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LARGE),
    "large profile": chunk(b"iCCP", b"icc\0\0" + LARGE),
    "many texts": chunk(b"zTXt", b"a\0\0" + zlib.compress(b"A" * 900_000)) * 80,
    "large texts": chunk(b"zTXt", b"a\0\0" + LARGE) * 70,
    "unknown method": chunk(b"zTXt", b"a\0\7x") + chunk(b"iCCP", b"a\0\7x"),
    "short": chunk(b"gAMA", b"")
    + chunk(b"pHYs", b"x")
    + chunk(b"iCCP", b"")
    + chunk(b"iTXt", b"")
    + chunk(b"zTXt", b""),
    **{
        f"{name.decode()} with a wrong checksum": chunk(name, b"Comment\0hello", is_whole=False)
        for name in (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"gAMA", b"tIME", b"acTL", b"fcTL", b"abCd")
    },
}


@pytest.mark.parametrize("what", ORNAMENTS)
@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
def test_what_a_png_says_beside_its_picture_rejects_nothing(what: str, before: bytes, photo: Image.Image) -> None:
    data = with_chunk(encoded(photo, "PNG"), ORNAMENTS[what], before)
    np.testing.assert_array_equal(decoded(data), np.asarray(photo))


def test_a_png_is_turned_as_its_texts_say(photo: Image.Image) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="3"/>'
    text = chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp))
    found = decoded(with_chunk(encoded(photo, "PNG"), text, b"IDAT"))
    np.testing.assert_array_equal(found, np.asarray(photo)[::-1, ::-1])


@pytest.mark.parametrize("name", [b"IHDR", b"PLTE", b"tRNS"])
def test_a_wrong_checksum_of_what_makes_the_picture_is_damage(name: bytes, photo: Image.Image) -> None:
    data = bytearray(encoded(photo.quantize(4), "PNG", transparency=0))
    at = data.index(name)
    (length,) = struct.unpack(">I", data[at - 4 : at])
    data[at + 4 + length] ^= 1
    assert reason(bytes(data)) == "corrupt"


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"II*\0", b"MM\0*"])
def test_what_begins_as_a_picture_is_damaged_and_not_something_else(data: bytes) -> None:
    assert reason(data) in ("corrupt", "truncated")
    assert reason(data + bytes(100)) in ("corrupt", "truncated")


def bmp_with_alpha(pixels: NDArray[np.uint8]) -> bytes:
    height, width = pixels.shape[:2]
    body = pixels[::-1, :, [2, 1, 0, 3]].tobytes()
    header = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(body), 2835, 2835, 0, 0)
    header += struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(body), 0, 0, 14 + len(header)) + header + body


def test_a_bmp_that_is_transparent_everywhere_is_its_colours(photo: Image.Image) -> None:
    pixels = np.dstack([np.asarray(photo), np.zeros((100, 100), np.uint8)])
    np.testing.assert_array_equal(decoded(bmp_with_alpha(pixels)), np.asarray(photo))
    pixels[:50, :, 3] = 255
    assert (decoded(bmp_with_alpha(pixels))[50:] == 255).all()


def in_mode(picture: Image.Image, mode: str) -> Image.Image:
    """A picture in RGBA in another mode with transparency; Pillow makes PA of RGBA alone, and La of LA."""
    if mode in ("LA", "La"):
        picture = picture.convert("LA")
    return picture if picture.mode == mode else picture.convert(mode)


def transparent(mode: str, photo: Image.Image) -> Image.Image:
    if mode == "P":
        palette = Image.new("P", (8, 8), 1)
        palette.putpalette([255, 0, 0, 0, 255, 0])
        return palette
    if mode == "RGB":
        return Image.new("RGB", (8, 8), (1, 2, 3))
    image = photo.convert("RGBA")
    image.putalpha(0)
    return in_mode(image, mode)


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("PNG", "RGBA", {}),
        ("PNG", "LA", {}),
        ("PNG", "P", {"transparency": 1}),
        ("PNG", "P", {"transparency": b"\xff\0"}),
        ("PNG", "RGB", {"transparency": (1, 2, 3)}),
        ("WEBP", "RGBA", {"lossless": True, "exact": True}),
        ("TIFF", "RGBA", {}),
        ("TIFF", "LA", {}),
        ("GIF", "P", {"transparency": 1}),
    ],
)
def test_a_picture_that_is_transparent_everywhere_is_rejected_and_not_white(
    kind: str, mode: str, options: dict[str, Any], photo: Image.Image
) -> None:
    assert reason(encoded(transparent(mode, photo), kind, **options)) == "transparent"


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa", "La"])
def test_pictures_of_other_modes_lie_over_white_or_are_rejected(mode: str, photo: Image.Image) -> None:
    with pytest.raises(ImageError, match="every pixel is transparent"):
        to_rgb(transparent(mode, photo))
    seen = photo.convert("RGBA")
    seen.putpixel((0, 0), (0, 0, 0, 0))
    found, plain = np.asarray(to_rgb(in_mode(seen, mode))), in_mode(seen, "LA" if mode == "La" else mode)
    assert found[0, 0].tolist() == [255] * 3
    np.testing.assert_array_equal(found[1:], np.asarray(plain.convert("RGBA"))[1:, :, :3])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP"])
def test_a_truncated_picture_is_never_half_a_picture(kind: str, photo: Image.Image) -> None:
    data = encoded(photo, kind)
    for share in (0.3, 0.5, 0.7, 0.9):
        assert reason(data[: int(len(data) * share)]) in ("truncated", "corrupt", "not_an_image"), share


def test_truncation_has_its_own_reason(pictures: list[bytes]) -> None:
    assert reason(pictures[0][: len(pictures[0]) // 2]) == "truncated"


def test_what_is_no_picture() -> None:
    assert reason(b"") == "empty"
    assert reason(b"hello, this is text") == "not_an_image"
    assert reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n") == "unsupported_format"
    assert reason(encoded(Image.new("RGB", (4, 4)), "PPM")) == "unsupported_format"
    assert reason(encoded(Image.new("RGB", (16, 16)), "ICO")) == "unsupported_format"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_too_many_pixels_are_refused_by_the_header_alone() -> None:
    claims = bytearray(encoded(Image.new("RGB", (1, 1)), "BMP"))
    claims[18:26] = struct.pack("<ii", 12_000, 12_000)
    assert reason(bytes(claims)) == "too_many_pixels"
    claims[18:26] = struct.pack("<ii", 30_000, 30_000)
    assert reason(bytes(claims), limit=10**12) == "too_many_pixels"


def test_a_picture_in_run_lengths_is_no_long_work_for_a_few_bytes() -> None:
    (data,) = (seed.data for seed in SEEDS if seed.name == "run lengths")
    decode_image(data, max_pixels=LIMIT)
    large = bytearray(data)
    large[18:26] = struct.pack("<ii", 8_388_624, 8)  # as the fuzzer found it: six seconds for a kilobyte
    start = time.process_time()
    assert reason(bytes(large), limit=80_000_000) == "too_many_pixels"
    assert time.process_time() - start < 1


def outcome(data: bytes) -> Image.Image | ImageError:
    try:
        return decode_image(data, max_pixels=LIMIT)
    except ImageError as error:
        return error


def check_outcome(data: bytes) -> None:
    """A picture that the network can take, or a known reason, and nothing else."""
    found = outcome(data)
    if isinstance(found, ImageError):
        assert found.reason in REASONS
        assert str(found).isprintable()
        assert len(str(found)) < 300
    else:
        assert found.mode == "RGB"
        assert to_input(found, "stretch").shape == to_input(found, "crop").shape == (224, 224, INPUT_CHANNELS)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
@given(st.builds(bytes.__add__, st.sampled_from([b"", *BEGINNINGS]), st.binary()))
@example(b"GIF89a\x01\x00\x01\x00\x00\x00\x00\x1b[31m,")
def test_any_bytes_are_a_picture_or_rejected_for_a_reason(data: bytes) -> None:
    check_outcome(data)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
@given(st.sampled_from(SEEDS), st.sampled_from(SEEDS), st.integers(0, 2**32))
def test_damaged_images_are_a_picture_or_rejected_for_a_reason(seed: Seed, other: Seed, chance: int) -> None:
    check_outcome(mutate(np.random.default_rng(chance), seed.data, other.data))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_the_fuzzer_knows_the_formats(kind: str) -> None:
    seeds = [seed for seed in SEEDS if seed.kind == kind]
    for seed in seeds:
        decode_image(seed.data, max_pixels=LIMIT)
        assert len(list(fields_of(seed.data))) > 5 or seed.name == "big"  # BigTIFF is damaged anywhere alone
    assert kind == "BMP" or max(len(list(blocks_of(seed.data))) for seed in seeds) > 3
