from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from mission9.engines import EngineName, choose_engine, make_engine
from mission9.engines.torch_model import MobileNetV2Features
from mission9.errors import ConfigError, SetupError
from mission9.preprocess import MEAN, STD, to_input
from mission9.sample import VARIETIES, draw
from mission9.stages.infer_features import Pixels
from mission9.weights import Tensors, Weights, load_weights
from tests.conftest import REAL_WEIGHTS, SHARED, assert_close

ENGINES = ("torch", "openvino")


@pytest.fixture(scope="module")
def images() -> Pixels:
    return np.stack([to_input(Image.fromarray(draw(v, stream=3, number=0)), "stretch") for v in VARIETIES[:7]])


@pytest.fixture(scope="module")
def reference(images: Pixels, demo_tensors: Tensors) -> NDArray[np.float64]:
    """The network as it is written, batch norms apart, in float64."""
    model = MobileNetV2Features().double().eval()
    model.load_tensors({name: torch.from_numpy(array.astype(np.float64)) for name, array in demo_tensors.items()})
    pixels = (images / 255.0 - np.array(MEAN)) / np.array(STD)
    with torch.inference_mode():
        features: NDArray[np.float64] = model(torch.from_numpy(pixels).permute(0, 3, 1, 2)).numpy()
        return features


@pytest.mark.parametrize("batch_size", [None, 1, 4, 16])
@pytest.mark.parametrize("engine", ENGINES)
def test_engines_agree_with_the_network_in_float64(
    engine: EngineName, batch_size: int | None, images: Pixels, reference: NDArray[np.float64], demo_weights: Weights
) -> None:
    spec = choose_engine(engine=engine, device="cpu", batch_size=batch_size)
    features = make_engine(spec, demo_weights, threads=1)(images)
    assert features.dtype == np.float32
    assert_close(features, reference, cosine=0.999999, relative=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_vector_does_not_depend_on_its_neighbours(engine: EngineName, images: Pixels, demo_weights: Weights) -> None:
    compute = make_engine(choose_engine(engine=engine, device="cpu"), demo_weights, threads=1)
    together, alone = compute(images), np.concatenate([compute(images[n : n + 1]) for n in range(len(images))])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.real
@pytest.mark.parametrize("engine", ENGINES)
def test_engines_agree_with_the_golden_features(engine: EngineName) -> None:
    golden = np.load(SHARED / "golden" / "fruits-64.npz")
    paths = [SHARED / "fruits-360" / path for path in golden["paths"]]
    images = np.stack([to_input(Image.open(path).convert("RGB"), "stretch") for path in paths])
    compute = make_engine(choose_engine(engine=engine, device="cpu"), load_weights(str(REAL_WEIGHTS)), threads=0)
    assert_close(compute(images), golden["features"], cosine=0.99999, relative=1e-3)


def test_an_engine_is_made_once(demo_weights: Weights) -> None:
    spec = choose_engine(device="cpu")
    assert make_engine(spec, demo_weights, threads=1) is make_engine(spec, demo_weights, threads=1)


def test_auto_is_openvino_on_a_cpu() -> None:
    assert choose_engine(device="cpu").engine == "openvino"


def test_what_cannot_be_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="openvino computes on the CPU"):
        choose_engine(engine="openvino", device="cuda")
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "none")
    with pytest.raises(SetupError, match="NVIDIA_VISIBLE_DEVICES hides"):
        choose_engine(device="cuda")
    assert choose_engine(device="auto").device == "cpu"
