from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mission9.errors import ImageError
from mission9.storage.local.names import from_text, label_folder, to_path, to_text

AT_LEISURE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a machine that is busy

names = st.binary(min_size=1).map(lambda b: b.replace(b"\0", b"0"))
tricky = st.lists(st.sampled_from([b"\\", b"x", b"f", b"\xff", b"\xc3", b"\xa9", b"a", b"\\xff", b"/"])).map(b"".join)


@AT_LEISURE
@given(names | tricky)
def test_any_name_comes_back_from_its_text(name: bytes) -> None:
    text = to_text(name)
    text.encode()  # no lone surrogates: Parquet and CSV take it
    assert from_text(text) == name


@AT_LEISURE
@given(tricky, tricky)
def test_different_names_have_different_texts(one: bytes, other: bytes) -> None:
    assert (to_text(one) == to_text(other)) == (one == other)


def test_names_in_utf8_are_themselves() -> None:
    assert to_text("Pêche 🍑\\n".encode()) == "Pêche 🍑\\n"


def test_path_of_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    name = b"caf\xe9.jpg"
    (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    assert os.path.exists(to_path(str(tmp_path), to_text(name)))


def test_label_folders_are_those_of_spark() -> None:
    assert label_folder("Apple Braeburn 1") == "label=Apple Braeburn 1"
    assert label_folder("100% pur=jus") == "label=100%25 pur%3Djus"


@pytest.mark.parametrize("label", ["x" * 300, "é" * 125, ":" * 100, "__HIVE_DEFAULT_PARTITION__"])
def test_labels_that_no_folder_can_carry_are_refused(label: str) -> None:
    with pytest.raises(ImageError) as caught:
        label_folder(label)
    assert caught.value.reason == "unusable_label"


@AT_LEISURE
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0")), st.text())
def test_folders_differ_where_labels_do(one: str, other: str) -> None:
    with contextlib.suppress(ImageError, UnicodeEncodeError):
        assert (label_folder(one) == label_folder(other)) == (one == other)
