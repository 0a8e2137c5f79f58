from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import cloudpickle
import numpy as np
import pyarrow as pa
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from mission9.decoding.pixels import pixels_digest
from mission9.decoding.protocol import MAX_IMAGES
from mission9.feature_extractor import MobileNetV2Extractor
from mission9.models.engines import choose_engine
from mission9.models.engines.base import EngineSpec
from mission9.models.engines.int8 import Int8Network
from mission9.models.extraction import Extraction
from mission9.models.weights import Tensors, Weights
from mission9.options import MAX_BYTES, MAX_PIXELS
from mission9.schema import FEATURES, OUTCOME, vectors
from mission9.sources.base import Root
from mission9.stages.infer_features import infer_features
from mission9.stages.prepare_images import RUN_BYTES, ImageRow, Pixels, prepare_ahead


@pytest.fixture
def extraction(demo_weights: Weights) -> Extraction:
    return Extraction(
        engine=choose_engine(device="cpu"),
        weights=demo_weights,
        preprocess="stretch",
        max_pixels=MAX_PIXELS,
        max_bytes=MAX_BYTES,
        pixels=pixels_digest(),
    )


def outcomes(rows: list[ImageRow], extraction: Extraction) -> pa.Table:
    table = pa.Table.from_batches(infer_features(rows, extraction), schema=OUTCOME)
    assert table["path"].to_pylist() == [row.path for row in rows]
    return table


def test_each_vector_is_its_own_images_among_bad_ones(
    pictures: list[bytes], extraction: Extraction, demo_weights: Weights
) -> None:
    contents = [pictures[n % 10] if n % 3 == 1 else b"bad" * n for n in range(100)]  # decoded at several goes
    rows = [ImageRow(f"{n}.jpg", "all", "a", len(content), content=content) for n, content in enumerate(contents)]
    table = outcomes(rows, extraction)
    extractor = MobileNetV2Extractor(device="cpu", weights=demo_weights)
    right = {content: extractor.extract(content) for content in pictures}
    for row, content in zip(table.to_pylist(), contents, strict=True):
        if content in right:
            assert row["reason"] is None
            assert (row["width"], row["height"], row["bytes"]) == (100, 100, len(content))
            np.testing.assert_allclose(row["features"], right[content], rtol=1e-4, atol=1e-4)
        else:
            assert row["features"] is None
            assert (row["stage"], row["reason"]) == ("decode", "not_an_image" if content else "empty")


def test_reasons_of_reading(tmp_path: Path, pictures: list[bytes], extraction: Extraction) -> None:
    (tmp_path / "large.jpg").write_bytes(b"x" * 100)
    (tmp_path / "folder.jpg").mkdir()
    small = Extraction(**{**vars(extraction), "max_bytes": 99})
    rows = [ImageRow(name, "all", "a", 0, root=Root(str(tmp_path))) for name in ("gone.jpg", "large.jpg", "folder.jpg")]
    table = outcomes(rows, small)
    assert table["reason"].to_pylist() == ["vanished", "too_many_bytes", "unreadable"]
    assert set(table["stage"].to_pylist()) == {"read"}


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path: Path, extraction: Extraction) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    table = outcomes([ImageRow("pipe.jpg", "all", "a", 0, root=Root(str(tmp_path)))], extraction)
    assert table["reason"].to_pylist() == ["unreadable"]


def test_what_was_not_read_has_the_listed_size_and_no_digest(pictures: list[bytes], extraction: Extraction) -> None:
    root = Root("memory://nothing-there")
    rows = [
        ImageRow("gone.jpg", "all", "a", 777, root),
        ImageRow("x.jpg", "all", "", 888, content=pictures[0]),
        ImageRow("y.jpg", "all", "a", 1, content=pictures[1]),
        ImageRow("z.jpg", "all", "a", 999, content=b""),
    ]
    pytest.importorskip("fsspec")
    table = outcomes(rows, extraction)
    assert table["stage"].to_pylist() == ["read", "list", None, "decode"]
    assert table["bytes"].to_pylist() == [777, 888, len(pictures[1]), 0]
    assert table["sha256"].is_valid().to_pylist() == [False, False, True, True]
    assert table["width"].to_pylist() == [None, None, 100, None]


def test_labels_and_splits_that_no_table_can_hold_are_rejects(pictures: list[bytes], extraction: Extraction) -> None:
    labels = [ImageRow("x.jpg", "all", label, 1, content=pictures[0]) for label in ("x" * 300, "", "fine")]
    splits = [ImageRow("x.jpg", split, "fine", 1, content=pictures[0]) for split in ("../x", "train")]
    reasons = outcomes(labels + splits, extraction)["reason"].to_pylist()
    assert reasons == ["unusable_label", "unusable_label", None, "unusable_split", "unusable_split"]


def test_features_that_are_not_finite_are_rejects(
    pictures: list[bytes], extraction: Extraction, demo_tensors: Tensors
) -> None:
    # Weights that loading would refuse, taken with torch: OpenVINO's ReLU6 makes a number of NaN.
    # Finite weights whose features are not: a linear layer gives infinity, and the next adds and subtracts it.
    huge = dict(demo_tensors) | {"features.17.conv.2.weight": np.full((320, 960, 1, 1), 1e38, np.float32)}
    broken = Extraction(
        **{
            **vars(extraction),
            "weights": Weights("huge", safetensors.numpy.save(huge)),
            "engine": choose_engine(engine="torch", device="cpu"),
        }
    )
    table = outcomes([ImageRow("x.jpg", "all", "a", 1, content=pictures[0])], broken)
    row = table.to_pylist()[0]
    assert (row["stage"], row["reason"], row["features"]) == ("infer", "non_finite_features", None)


class Sampled:
    """An engine whose vectors are pixels of each image; it remembers how many images it was given at a time."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.given: list[int] = []

    def __call__(self, images: Pixels) -> NDArray[np.float32]:
        self.given.append(len(images))
        return images.reshape(len(images), -1)[:, ::156][:, :FEATURES].astype(np.float32)


def test_a_gpu_gets_whole_batches(
    pictures: list[bytes], extraction: Extraction, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, one = Sampled(64), Sampled(1)
    monkeypatch.setattr("mission9.stages.infer_features.make_engine", lambda *_, **__: engine)
    monkeypatch.setattr("mission9.devices.decode_threads", lambda: 3)
    on_gpu = Extraction(**{**vars(extraction), "engine": EngineSpec(engine="torch", device="cuda")})
    contents = [b"bad" if n in (3, 40, 41) else pictures[n % 10] for n in range(150)]
    rows = [ImageRow(f"{n}.jpg", "all", "a", len(data), content=data) for n, data in enumerate(contents)]
    table = outcomes(rows, on_gpu)
    assert engine.given == [61, 64, 22]
    good = table.filter(table["reason"].is_null())
    monkeypatch.setattr("mission9.stages.infer_features.make_engine", lambda *_, **__: one)
    right = outcomes([row for n, row in enumerate(rows) if contents[n] != b"bad"], extraction)
    assert good["path"].equals(right["path"])
    np.testing.assert_array_equal(vectors(good["features"]), vectors(right["features"]))
    assert len(np.unique(vectors(good["features"]), axis=0)) == len(pictures)


@pytest.mark.parametrize(("device", "readers"), [("cpu", 1), ("cuda", 3)])
def test_reading_goes_so_far_ahead_and_no_further(
    device: Literal["cpu", "cuda"], readers: int, extraction: Extraction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mission9.devices.decode_threads", lambda: readers)
    spec = EngineSpec(engine="torch", device=device)
    extraction = Extraction(**{**vars(extraction), "engine": spec})
    taken = []

    def rows(content: bytes, count: int) -> Iterator[ImageRow]:
        for n in range(count):
            taken.append(n)
            yield ImageRow(f"{n}.jpg", "all", "a", len(content), content=content)

    batches = 3 * readers
    for content, size in ((b"bad", MAX_IMAGES), (b"b" * (RUN_BYTES // 2), 3)):
        taken.clear()
        prepared = prepare_ahead(rows(content, 4 * batches * size), extraction)
        assert [row.path for row in next(prepared).rows] == [f"{n}.jpg" for n in range(size)]
        assert len(taken) == batches * size
        paths = [row.path for batch in prepared for row in batch.rows]
        assert paths == [f"{n}.jpg" for n in range(size, 4 * batches * size)]


def test_nothing_in_nothing_out(extraction: Extraction) -> None:
    assert outcomes([], extraction).num_rows == 0


def test_the_fingerprint_changes_with_what_changes_features(extraction: Extraction, demo_tensors: Tensors) -> None:
    other = Weights("x", safetensors.numpy.save({k: v + 1 for k, v in demo_tensors.items()}))
    changes: list[dict[str, Any]] = [
        {},
        {"weights": other},
        {"preprocess": "crop"},
        {"engine": choose_engine(engine="torch", device="cpu")},
    ]
    prints = [Extraction(**{**vars(extraction), **change}).fingerprint for change in changes]
    assert len(set(prints)) == len(prints)
    renamed = Weights("another name", extraction.weights.data)
    assert Extraction(**{**vars(extraction), "weights": renamed}).fingerprint == extraction.fingerprint


def test_what_the_workers_are_sent_does_not_change_while_it_is_sent(extraction: Extraction) -> None:
    """A thread sends it while another asks for the fingerprint."""
    sent = replace(extraction, weights=replace(extraction.weights), int8=Int8Network(b"graph", b"constants"))
    before = cloudpickle.dumps(sent)
    assert sent.fingerprint != extraction.fingerprint
    assert cloudpickle.dumps(sent) == before


def test_vectors_of_a_slice(extraction: Extraction, pictures: list[bytes]) -> None:
    rows = [ImageRow(f"{n}.jpg", "all", "a", 1, content=pictures[n]) for n in range(6)]
    table = outcomes(rows, extraction)
    np.testing.assert_array_equal(vectors(table["features"])[2:4], vectors(table.slice(2, 2)["features"]))
