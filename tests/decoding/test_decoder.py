"""The limits of a child that decodes, as it finds them itself while it has an image in hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mission9.decoding.isolated import Decoded, decode_apart
from mission9.decoding.protocol import TIME_LIMIT, DecoderSettings

MAX_PIXELS = 2_000_000
MIB = 1024 * 1024

# Children load it when they start; it notes what they may take, and how long the image in hand may still take.
NOTES = """
import json, os, resource, signal
import simplejpeg

decode_jpeg = simplejpeg.decode_jpeg

def noting(*data, **options):
    with open("/proc/self/statm") as statm:
        in_use = int(statm.read().split()[0]) * resource.getpagesize()
    with open(os.environ["NOTES"], "w") as notes:
        json.dump(
            {
                "seconds": signal.getitimer(signal.ITIMER_REAL)[0],
                "core": resource.getrlimit(resource.RLIMIT_CORE),
                "memory": resource.getrlimit(resource.RLIMIT_AS),
                "in use": in_use,
            },
            notes,
        )
    return decode_jpeg(*data, **options)

simplejpeg.decode_jpeg = noting
"""


@pytest.fixture(scope="module")
def limits(pictures: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The notes of a child while it decodes a picture."""
    folder, idle = tmp_path_factory.mktemp("notes"), dict[Any, Any]()
    (folder / "sitecustomize.py").write_text(NOTES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.setenv("NOTES", str(folder / "notes.json"))
        patch.setattr("mission9.decoding.isolated._idle", idle)  # the child is a new one, and no other test's
        (outcome,) = decode_apart([pictures[0]], DecoderSettings("stretch", MAX_PIXELS))
    for children in idle.values():
        children.get_nowait().decoder.end()
    assert isinstance(outcome, Decoded)
    found: dict[str, Any] = json.loads((folder / "notes.json").read_bytes())
    return found


def test_an_image_has_ten_seconds_of_the_clock(limits: dict[str, Any]) -> None:
    assert TIME_LIMIT == 10
    assert 0 < limits["seconds"] <= TIME_LIMIT


def test_a_decoder_that_crashes_leaves_no_core_file(limits: dict[str, Any]) -> None:
    assert limits["core"] == [0, 0]


def test_memory_is_limited_by_the_pixels_that_are_allowed(limits: dict[str, Any]) -> None:
    soft, hard = limits["memory"]
    beside = soft - 16 * MAX_PIXELS - 512 * MIB  # what the child held when it began, about as much as it does now
    assert soft == hard
    assert 0 < beside < limits["in use"] + 64 * MIB
