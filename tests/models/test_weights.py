from __future__ import annotations

import http.server
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from mission9.errors import SetupError, WeightsError
from mission9.models import weights as module
from mission9.models.weights import Tensors, Weights, load_weights


class Canary:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_one_set_of_tensors_has_one_hash_in_every_format(
    tmp_path: Path, demo_weights: Weights, demo_tensors: Tensors
) -> None:
    torch.save({name: torch.from_numpy(array.copy()) for name, array in demo_tensors.items()}, tmp_path / "w.pth")
    safetensors.numpy.save_file(dict(demo_tensors), tmp_path / "w.safetensors")
    assert load_weights(str(tmp_path / "w.pth")).sha256 == demo_weights.sha256
    assert load_weights(str(tmp_path / "w.safetensors")).sha256 == demo_weights.sha256


def test_classifier_and_counters_are_left_out(tmp_path: Path, demo_weights: Weights, demo_tensors: Tensors) -> None:
    more = {"classifier.1.weight": np.ones((1000, 1280), np.float32)}
    safetensors.numpy.save_file(dict(demo_tensors) | more, tmp_path / "w.safetensors")
    assert load_weights(str(tmp_path / "w.safetensors")).sha256 == demo_weights.sha256


def test_half_precision_becomes_float32(demo_tensors: Tensors) -> None:
    assert {array.dtype for array in demo_tensors.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("keep", [0, 10, 4000, -100])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_files_are_refused(tmp_path: Path, demo_tensors: Tensors, suffix: str, keep: int) -> None:
    path = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save({name: torch.from_numpy(array.copy()) for name, array in demo_tensors.items()}, path)
    else:
        safetensors.numpy.save_file(dict(demo_tensors), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=f"w{suffix}"):
        load_weights(str(path))


def test_another_network_is_named_by_its_first_wrong_tensor(tmp_path: Path, demo_tensors: Tensors) -> None:
    safetensors.numpy.save_file({"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="no tensor features.0.0.weight"):
        load_weights(str(tmp_path / "w.safetensors"))
    wide = dict(demo_tensors) | {"features.18.0.weight": np.zeros((1792, 320, 1, 1), np.float32)}
    safetensors.numpy.save_file(wide, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"features.18.0.weight has shape \(1792, 320, 1, 1\)"):
        load_weights(str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_values_that_no_network_has_are_refused(tmp_path: Path, demo_tensors: Tensors, value: float) -> None:
    bad = dict(demo_tensors) | {"features.0.1.bias": np.full(32, value, np.float32)}
    safetensors.numpy.save_file(bad, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="features.0.1.bias holds NaN"):
        load_weights(str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_a_pickle_that_runs_code_is_refused_unrun(tmp_path: Path, suffix: str, legacy: bool) -> None:
    path, canary = tmp_path / f"w{suffix}", tmp_path / "canary"
    torch.save({"features.0.0.weight": Canary(canary)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match="were not run"):
        load_weights(str(path))
    assert not canary.exists()
    path.write_bytes(pickle.dumps(Canary(canary), protocol=2))
    with pytest.raises(WeightsError, match="were not run"):
        load_weights(str(path))
    assert not canary.exists()


def test_files_that_are_absent_or_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weights file"):
        load_weights(str(tmp_path / "none.pth"))
    (tmp_path / "w.onnx").write_bytes(b"x")
    with pytest.raises(WeightsError, match="must end in"):
        load_weights(str(tmp_path / "w.onnx"))
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="state dict"):
        load_weights(str(tmp_path / "list.pth"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.usefixtures("cache")
def test_no_network_says_how_to_give_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IMAGENET_URL", "http://127.0.0.1:9/mobilenet_v2-7ebf99e0.pth")
    with pytest.raises(SetupError, match="--weights mobilenet_v2-7ebf99e0.pth"):
        load_weights("imagenet")


@pytest.mark.usefixtures("cache")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_download_that_is_not_the_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mobilenet_v2-7ebf99e0.pth").write_bytes(b"not the weights")

    class Files(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/mobilenet_v2-7ebf99e0.pth"
        monkeypatch.setattr(module, "IMAGENET_URL", url)
        with pytest.raises(WeightsError, match="not the file it should be"):
            load_weights("imagenet")
        server.shutdown()
