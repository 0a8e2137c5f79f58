from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from mission9 import devices
from mission9.errors import ConfigError, DeviceError, ModelError, SetupError
from mission9.models.engines import check_cpu, choose_engine, make_engine
from mission9.models.engines.int8 import Int8Network, calibrate
from mission9.models.engines.openvino_engine import MICRO_BATCHES, OpenVINOEngine
from mission9.models.engines.openvino_graph import features_graph
from mission9.models.engines.torch_engine import TorchEngine
from mission9.models.preprocess import to_input
from mission9.models.weights import Tensors, Weights, load_weights
from mission9.options import Device, EngineName, Precision
from mission9.stages.prepare_images import Pixels
from tests.conftest import REAL_WEIGHTS, SHARED, assert_close
from tests.support.reference import drawn_pixels, features_in_float64

ENGINES = ("torch", "openvino")


@pytest.fixture(scope="module")
def images() -> Pixels:
    return drawn_pixels(7)


@pytest.fixture(scope="module")
def reference(images: Pixels, demo_tensors: Tensors) -> NDArray[np.float64]:
    return features_in_float64(images, demo_tensors)


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
    compute = make_engine(choose_engine(engine=engine, device="cpu"), load_weights(str(REAL_WEIGHTS)), threads=1)
    assert_close(compute(images), golden["features"], cosine=0.99999, relative=1e-3)


def test_torch_in_half_the_precision_gives_float32_near_the_reference(
    images: Pixels, reference: NDArray[np.float64], demo_weights: Weights
) -> None:
    # Two images: CPUs without the instructions for it are slow.
    spec = choose_engine(engine="torch", device="cpu", precision="bf16")
    features = make_engine(spec, demo_weights, threads=1)(images[:2])
    assert features.dtype == np.float32
    assert_close(features, reference[:2], cosine=0.999, relative=5e-2)
    assert not np.allclose(features, reference[:2], rtol=1e-4, atol=1e-4)  # it is another arithmetic, then
    # The averages are not rounded to 8 bits.
    assert (features.view(np.uint32) & 0xFFFF).any()


def small_memory(engine: TorchEngine, most: int, error: RuntimeError) -> list[int]:
    """Let the engine's network fail above so many images, as a device does; the list tells what was tried."""
    tried = []

    def allocate(module: torch.nn.Module, arguments: tuple[torch.Tensor]) -> None:
        tried.append(len(arguments[0]))
        if len(arguments[0]) > most:
            raise error

    engine._model.register_forward_pre_hook(allocate)
    return tried


def torch_engine(tensors: Tensors, *, batch_size: int) -> TorchEngine:
    return TorchEngine(tensors, device="cpu", threads=1, batch_size=batch_size)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
    ],
)
def test_too_little_memory_halves_the_batch(
    error: RuntimeError, images: Pixels, demo_tensors: Tensors, caplog: pytest.LogCaptureFixture
) -> None:
    right = torch_engine(demo_tensors, batch_size=7)(images)
    engine = torch_engine(demo_tensors, batch_size=16)
    tried = small_memory(engine, 2, error)
    for _ in range(3):
        np.testing.assert_allclose(engine(images), right, rtol=1e-5, atol=1e-5)
    assert engine.batch_size == 2
    assert tried == [7, 3, *[1] * 7, 4, 2, 2, 2, 1, 2, 2, 2, 1]
    assert [record.getMessage() for record in caplog.records] == [
        f"cpu lacks memory: at most {size} images at a time for now" for size in (4, 2)
    ]


def test_the_rest_of_a_shard_does_not_set_the_size_of_batches(images: Pixels, demo_tensors: Tensors) -> None:
    engine = torch_engine(demo_tensors, batch_size=256)
    tried = small_memory(engine, 2, torch.OutOfMemoryError("out of memory"))
    assert len(engine(images[:3])) == 3
    assert (tried, engine.batch_size) == ([3, 1, 1, 1], 128)


def test_batches_grow_again(images: Pixels, demo_tensors: Tensors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mission9.models.engines.torch_engine._GROW_AFTER", 1)
    engine = torch_engine(demo_tensors, batch_size=8)
    memory = [1]

    def allocate(_: torch.nn.Module, arguments: tuple[torch.Tensor]) -> None:
        if len(arguments[0]) > memory[0]:
            raise torch.OutOfMemoryError("out of memory")

    engine._model.register_forward_pre_hook(allocate)
    engine(images)
    reduced = engine.batch_size
    memory[0] = 100
    sizes = [engine.batch_size for _ in range(40) if len(engine(images[:1])) == 1]
    assert reduced < 8
    assert sizes == sorted(sizes)
    assert sizes[-1] == 8


def test_a_gpu_that_failed_is_no_fault_of_the_images(
    images: Pixels, demo_tensors: Tensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = torch_engine(demo_tensors, batch_size=4)
    tried = small_memory(engine, 0, torch.AcceleratorError("CUDA error: unspecified launch failure\nCUDA kernel"))
    with pytest.raises(DeviceError, match=r"cpu failed \(CUDA error: unspecified launch failure\): rerun"):
        engine(images)
    assert tried == [4]


def test_too_little_memory_in_the_middle_loses_no_image(images: Pixels, demo_tensors: Tensors) -> None:
    engine = torch_engine(demo_tensors, batch_size=4)
    tried = small_memory(engine, 4, torch.OutOfMemoryError("out of memory"))
    right = engine(images)
    shrunk = small_memory(engine, 2, torch.OutOfMemoryError("out of memory"))
    np.testing.assert_allclose(engine(images), right, rtol=1e-5, atol=1e-5)
    assert (tried[:2], shrunk) == ([4, 3], [4, 2, 2, 2, 1])


def test_no_memory_for_one_image_is_said(images: Pixels, demo_tensors: Tensors) -> None:
    engine = torch_engine(demo_tensors, batch_size=4)
    small_memory(engine, 0, torch.OutOfMemoryError("CUDA out of memory.\nmore lines"))
    with pytest.raises(SetupError, match=r"cpu cannot infer even one image at a time: CUDA out of memory\.$"):
        engine(images)


def test_other_errors_of_the_network_stay_what_they_are(images: Pixels, demo_tensors: Tensors) -> None:
    engine = torch_engine(demo_tensors, batch_size=4)
    small_memory(engine, 0, RuntimeError("a defect"))
    with pytest.raises(RuntimeError, match="a defect"):
        engine(images)
    assert engine.batch_size == 4


def test_float32_is_float32_while_the_network_runs_and_settings_stay(images: Pixels, demo_tensors: Tensors) -> None:
    kinds = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined] # made when imported
    before, during = [kind.fp32_precision for kind in kinds], []
    engine = torch_engine(demo_tensors, batch_size=4)
    engine._model.register_forward_pre_hook(lambda *_: during.append([kind.fp32_precision for kind in kinds]))
    engine(images[:1])
    assert during == [["ieee", "ieee"]]
    assert [kind.fp32_precision for kind in kinds] == before


def test_no_images_have_no_features(demo_tensors: Tensors, images: Pixels) -> None:
    assert torch_engine(demo_tensors, batch_size=4)(images[:0]).shape == (0, 1280)


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


def test_a_gpu_may_be_where_the_workers_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "has_cuda", lambda: False)
    spec = choose_engine(device="cuda", elsewhere=True)
    assert (spec.engine, spec.device, spec.precision) == ("torch", "cuda", "float32")
    with pytest.raises(ConfigError, match="measured on this machine, which has no GPU"):
        choose_engine(device="cuda", precision="float16", elsewhere=True)
    assert choose_engine(device="auto", elsewhere=True).device == "cpu"


def test_the_fastest_micro_batch_is_probed_once_for_a_machine(
    demo_tensors: Tensors, images: Pixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    notes = tmp_path / "mission9" / "micro-batches.json"
    first = OpenVINOEngine(features_graph(demo_tensors), threads=1, batch_size=None)
    assert list(json.loads(notes.read_text()).values()) == [first.batch_size]
    assert first.batch_size in MICRO_BATCHES
    other = next(size for size in MICRO_BATCHES if size != first.batch_size)
    notes.write_text(json.dumps(dict.fromkeys(json.loads(notes.read_text()), other)))
    second = OpenVINOEngine(features_graph(demo_tensors), threads=1, batch_size=None)
    assert second.batch_size == other
    np.testing.assert_allclose(first(images), second(images), rtol=1e-5, atol=1e-5)
    notes.write_text("damaged")
    assert OpenVINOEngine(features_graph(demo_tensors), threads=1, batch_size=None).batch_size in MICRO_BATCHES


def test_each_micro_batch_gives_equal_features(demo_tensors: Tensors, images: Pixels) -> None:
    engines = [OpenVINOEngine(features_graph(demo_tensors), threads=1, batch_size=size) for size in MICRO_BATCHES]
    first, *others = [engine(images) for engine in engines]
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-5, atol=1e-5)


def test_a_probe_that_cannot_be_noted_is_no_failure(
    demo_tensors: Tensors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert OpenVINOEngine(features_graph(demo_tensors), threads=1, batch_size=None).batch_size in MICRO_BATCHES


@pytest.mark.slow
def test_int8_is_calibrated_kept_and_close(
    demo_weights: Weights, images: Pixels, reference: NDArray[np.float64], tmp_path: Path
) -> None:
    network = calibrate(demo_weights, images)
    network.save(tmp_path)
    assert Int8Network.load(tmp_path) == network
    spec = choose_engine(device="cpu", precision="int8", batch_size=1)
    features = make_engine(spec, demo_weights, threads=1, int8=network)(images)
    lengths = np.linalg.norm(features, axis=1) * np.linalg.norm(reference, axis=1)
    cosines = (features * reference).sum(1) / lengths
    assert 0.95 < cosines.min() < 0.99999  # close, and another arithmetic indeed
    (tmp_path / "int8.bin").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="is damaged: delete that folder"):
        Int8Network.load(tmp_path)
    assert Int8Network.load(tmp_path / "nowhere") is None
    with pytest.raises(ConfigError, match="calibrated"):
        make_engine(spec, demo_weights, threads=1)


def test_a_cpu_without_bfloat16_is_told_before_the_work(demo_weights: Weights) -> None:
    spec = choose_engine(engine="openvino", device="cpu", precision="bf16", batch_size=1)
    assert spec.precision == "bfloat16"
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        check_cpu(spec)
        make_engine(spec, demo_weights, threads=1)
    else:
        with pytest.raises(SetupError, match="no arithmetic in bfloat16"):
            check_cpu(spec)
        with pytest.raises(SetupError, match="no arithmetic in bfloat16"):
            make_engine(spec, demo_weights, threads=1)


@pytest.mark.parametrize(
    ("engine", "device", "precision"),
    [("torch", "cpu", "int8"), ("torch", "cpu", "float16"), ("openvino", "cpu", "float16")],
)
def test_precisions_that_an_engine_lacks_are_refused(engine: EngineName, device: Device, precision: Precision) -> None:
    with pytest.raises(ConfigError, match=f"{engine} on cpu computes in float32, .*, not in {precision}"):
        choose_engine(engine=engine, device=device, precision=precision)
