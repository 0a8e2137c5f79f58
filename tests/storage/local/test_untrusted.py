"""Files that somebody made to do harm: refused in a line, with nothing run and little memory taken."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
import safetensors.numpy
import torch
from openvino import opset13 as op

from mission9 import PCAModel, RunConfig
from mission9.cli import main
from mission9.errors import ConfigError, ModelError
from mission9.models.engines.int8 import Int8Network
from mission9.models.weights import Weights
from mission9.output.local import Output
from mission9.output.shards import read_marker
from mission9.pca import Moments, fit
from mission9.results.projector import Projector
from mission9.runners.local import LocalRunner
from mission9.storage.local.files import write_atomic
from tests.conftest import REPOSITORY
from tests.support.forks import USUAL, Forks

pytestmark = pytest.mark.xdist_group("test_untrusted")  # which has one process that forks

MAX_MORE = 300 * 1024  # kilobytes that a refusal may take more than another
DEEP = b"[" * 200_000


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    """Forks of a process that has loaded what reads weights: what a fork has more is what a file makes it take."""
    with Forks(modules=(*USUAL, "torch", "mission9.results.projector"), engine=False) as started:
        yield started


def refused(forks: Forks, *arguments: str) -> tuple[str, int]:
    """The message of a command that must end with 2, and its peak memory in kilobytes."""
    done = forks.run(*arguments)
    return refusal(done), done.memory


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in done.stderr.splitlines() if "Warning" not in line]
    assert done.returncode == 2, done.stderr
    assert lines[-1].startswith("mission9: ")
    assert "Traceback" not in done.stderr
    return lines[-1]


def header(facts: Any) -> bytes:
    text = json.dumps(facts).encode()
    return struct.pack("<Q", len(text)) + text


def tensor(shape: list[int], *offsets: int, kind: str = "F32") -> dict[str, Any]:
    return {"features.0.0.weight": {"dtype": kind, "shape": shape, "data_offsets": list(offsets)}}


def sparse_file(size: int) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(size)

    return make


def zip_bomb(path: Path) -> None:
    """A file as torch saves it, with a tensor of 700 MB of zeros compressed to 700 kB."""
    torch.save({"features.0.0.weight": torch.zeros(1)}, path)
    with zipfile.ZipFile(path) as whole:
        entries = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in entries.items():
            with archive.open(name, "w") as file:
                for block in [b"\0" * 10_000_000] * 70 if name.endswith("/data/0") else [data]:
                    file.write(block)
    assert path.stat().st_size < 10_000_000


def saved(make: Callable[[], torch.Tensor]) -> Callable[[Path], object]:
    return lambda path: torch.save({"features.0.0.weight": make()}, path)


SAFETENSORS: dict[str, Callable[[Path], object]] = {
    "a header of 2^63 bytes": lambda path: path.write_bytes(struct.pack("<Q", 2**63) + b"{}"),
    "a header of 90 MB": lambda path: path.write_bytes(struct.pack("<Q", 90_000_000) + b"{" + b" " * 90_000_000),
    "a shape that overflows": lambda path: path.write_bytes(header(tensor([2**62, 8], 0, 4)) + bytes(4)),
    "a shape of nothing times a lot": lambda path: path.write_bytes(header(tensor([0, 2**62], 0, 0))),
    "a tensor beyond the file": lambda path: path.write_bytes(header(tensor([2**30], 0, 2**32)) + bytes(4)),
    "a tensor before the file": lambda path: path.write_bytes(header(tensor([1], -4, 0)) + bytes(4)),
    "numbers that numpy has not": lambda path: path.write_bytes(header(tensor([2], 0, 4, kind="BF16")) + bytes(4)),
    "a header that is a list": lambda path: path.write_bytes(header([1, 2])),
    "a deep header": lambda path: path.write_bytes(struct.pack("<Q", len(DEEP)) + DEEP),
    "3 GB of nothing": sparse_file(3 << 30),
}
PTH: dict[str, Callable[[Path], object]] = {
    "an archive that unpacks to 700 MB": zip_bomb,
    "one number repeated a billion times": saved(lambda: torch.zeros(1, dtype=torch.float16).expand(30_000, 30_000)),
    "a tensor that is nowhere": saved(lambda: torch.empty(32, 3, 3, 3, device="meta")),
    "a sparse tensor": saved(lambda: torch.zeros(32, 3).to_sparse()),
    "a pickle that asks for 100 GB": lambda path: path.write_bytes(b"cbuiltins\nbytearray\n(I100000000000\ntR."),
    "a deep pickle": lambda path: path.write_bytes(b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."),
    "3 GB of nothing": sparse_file(3 << 30),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "cases"), [(".safetensors", SAFETENSORS), (".pth", PTH)], ids=["safetensors", "pth"]
)
def test_weights_made_to_do_harm_are_refused(
    suffix: str, cases: dict[str, Callable[[Path], object]], forks: Forks, tree: Path, tmp_path: Path
) -> None:
    file = tmp_path / f"weights{suffix}"
    arguments = ["run", "--input", str(tree), "--output", str(tmp_path / "out"), "--weights", str(file)]
    file.write_bytes(b"no weights")
    _, usual = refused(forks, *arguments)
    for case, make in cases.items():
        make(file)
        line, memory = refused(forks, *arguments)
        assert "weights" in line, case
        assert memory < usual + MAX_MORE, f"{case}: {memory} kB, {usual} as a rule"
    assert not (tmp_path / "out").exists()


@pytest.fixture
def model(demo_weights: Weights, tmp_path: Path) -> Path:
    """A PCA model that `mission9 project` takes."""
    rows = np.random.default_rng(0).normal(size=(8, 1280))
    folder = tmp_path / "model"
    facts = {"name": "demo", "sha256": demo_weights.sha256}
    fit(Moments.of(rows), 3).save(folder, {"weights": facts, "preprocess": "stretch", "engine": {}})
    (folder / "weights.safetensors").write_bytes(demo_weights.data)
    return folder


def with_arrays(model: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the arrays of a model, and note their new hash: whoever does harm can do that too."""
    arrays = safetensors.numpy.load_file(model / "pca.safetensors")
    change(arrays)
    data = safetensors.numpy.save(arrays)
    (model / "pca.safetensors").write_bytes(data)
    with_facts(model, lambda facts: facts.update(sha256=hashlib.sha256(data).hexdigest()))


def with_facts(model: Path, change: Callable[[dict[str, Any]], object]) -> None:
    facts = json.loads((model / "pca.json").read_text())
    change(facts)
    (model / "pca.json").write_text(json.dumps(facts))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


MODELS: dict[str, Callable[[Path], object]] = {
    "deep facts": lambda model: (model / "pca.json").write_bytes(DEEP),
    "facts of 1 GB": lambda model: sparse_file(1 << 30)(model / "pca.json"),
    "facts that are a list": lambda model: (model / "pca.json").write_text("[1]"),
    "facts from a pipe": lambda model: pipe(model / "pca.json"),
    "arrays of 1 GB": lambda model: sparse_file(1 << 30)(model / "pca.safetensors"),
    "other features": lambda model: with_arrays(
        model, lambda a: a.update(components=np.eye(3, 7), mean=np.zeros(7), scatter=np.eye(7))
    ),
    "arrays that do not fit": lambda model: with_arrays(model, lambda a: a.update(mean=np.zeros(7))),
    "NaN": lambda model: with_arrays(model, lambda a: a.update(mean=np.full(1280, np.nan))),
    "other numbers": lambda model: with_arrays(model, lambda a: a.update(mean=np.zeros(1280, np.float32))),
    "a number that is text": lambda model: with_facts(model, lambda facts: facts.update(n_samples="many")),
    "another preprocessing": lambda model: with_facts(model, lambda facts: facts.update(preprocess="zoom")),
    "weights that are a list": lambda model: with_facts(model, lambda facts: facts.update(weights=[1])),
    "weights of 1 GB": lambda model: sparse_file(1 << 30)(model / "weights.safetensors"),
}


@pytest.mark.parametrize("case", MODELS)
def test_models_made_to_do_harm_are_refused(
    case: str, model: Path, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["project", "--model", str(model), str(tree / "Test/a/0.jpg")]
    assert main(command) == 0
    capsys.readouterr()
    MODELS[case](model)
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("mission9: ")
    assert error.count("\n") == 1


@pytest.mark.slow
def test_models_made_to_do_harm_take_no_memory(forks: Forks, model: Path, tmp_path: Path) -> None:
    _, usual = refused(forks, "project", "--model", str(tmp_path), "x.jpg")
    for case in ("facts of 1 GB", "arrays of 1 GB", "weights of 1 GB", "deep facts"):
        copy = tmp_path / case
        shutil.copytree(model, copy)
        MODELS[case](copy)
        _, memory = refused(forks, "project", "--model", str(copy), "x.jpg")
        assert memory < usual + MAX_MORE, f"{case}: {memory} kB, {usual} as a rule"


LAUGHS = b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(12))


def network(make: Callable[[ov.Node], ov.Node], shape: tuple[int, ...] = (1, 224, 224, 4)) -> Int8Network:
    images = op.parameter(list(shape), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        ov.save_model(ov.Model([make(images)], [images], "x"), Path(folder) / "x.xml")
        return Int8Network((Path(folder) / "x.xml").read_bytes(), (Path(folder) / "x.bin").read_bytes())


def outer(images: ov.Node) -> ov.Node:
    """A million numbers plus a million others, each with each."""
    numbers = np.zeros((1, 1_000_000), np.float32)
    return op.reduce_mean(op.add(op.constant(numbers), op.constant(numbers.T)), np.array([0]), keep_dims=False)


@pytest.mark.parametrize(
    "harmful",
    [
        lambda: Int8Network(
            b'<?xml version="1.0"?><!DOCTYPE net [<!ENTITY a "ha">' + LAUGHS + b"]><net>&m;</net>", b""
        ),
        lambda: Int8Network(b"no graph", b""),
        lambda: Int8Network(b"", b""),
        lambda: network(lambda images: op.broadcast(images, np.array([1000, 224, 224, 4]))),
        lambda: network(lambda images: op.read_value(images, "state")),
        lambda: network(outer),
        lambda: network(lambda images: op.convert(images, np.float32)),
        lambda: network(lambda images: op.convert(images, np.float32), (-1, 2)),
    ],
)
def test_int8_networks_made_to_do_harm_are_refused(
    harmful: Callable[[], Int8Network], model: Path, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelError):
        harmful().read()
    harmful().save(model)
    assert main(["project", "--model", str(model), str(tree / "Test/a/0.jpg")]) == 2
    assert capsys.readouterr().err.startswith("mission9: the int8 network is ")


def test_an_int8_network_too_large_is_not_read(tmp_path: Path) -> None:
    Int8Network(b"graph", b"constants").save(tmp_path)
    sparse_file(1 << 40)(tmp_path / "int8.bin")
    with pytest.raises(ModelError, match="is damaged"):
        Int8Network.load(tmp_path)


@pytest.mark.parametrize(
    "content", [b"x = " + DEEP, b"\xff\xfe", b"x = 1\n" * 400_000, b"components = [[1]]", b"components = 1e999"]
)
def test_settings_made_to_do_harm_are_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        RunConfig(config=file)
    assert "\n" not in str(caught.value)


def test_settings_from_a_pipe_or_a_device_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for file in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ConfigError, match="there is no settings file"):
            RunConfig(config=file)


def test_markers_and_reports_made_to_do_harm_are_as_good_as_none(tmp_path: Path) -> None:
    for content in (DEEP, b"[]", b'{"key": "k", "features": {"rows": 1}, "rejects": []}', b"\xff"):
        write_atomic(tmp_path / "k.json", content)
        assert read_marker(tmp_path, "k") is None
        write_atomic(tmp_path / "run.json", content)
        assert "fingerprint" not in Output(tmp_path).last_report()
    pipe(tmp_path / "k.json")
    assert read_marker(tmp_path, "k") is None


POISON = """
import sys
from mission9 import MobileNetV2Extractor
from mission9.errors import ImageError
try:
    MobileNetV2Extractor(weights="demo").extract(sys.stdin.buffer.read())
except ImageError as error:
    print(error.reason)
"""


def test_single_images_are_decoded_in_a_child_as_well(tmp_path: Path, pictures: list[bytes]) -> None:
    crash = "import os, simplejpeg; simplejpeg.decode_jpeg = lambda *_, **__: os.abort()"
    (tmp_path / "sitecustomize.py").write_text(crash)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", POISON]
    done = subprocess.run(command, input=pictures[0], env=environment, capture_output=True, check=True, timeout=120)
    assert done.stdout == b"decoder_crashed\n"


def test_a_task_lies_on_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def files(number: int) -> bytes:
        return f"{number} {sorted(path.name for path in tmp_path.rglob('*'))}".encode()

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with LocalRunner(1) as runner:
        assert runner.map(files, 2) == [b"0 []", b"1 []"]


# What runs what a file holds. cloudpickle is for tasks alone, which lie in memory of ours for as long as they run.
FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load",
    "cloudpickle.loads", "marshal.load", "marshal.loads", "shelve.open", "yaml.load", "joblib.load", "np.load",
    "numpy.load", "pd.read_pickle", "os.system", "os.popen", "torch.jit.load", "torch.hub.load",
}  # fmt: skip
ALLOWED = {("local.py", "cloudpickle.loads")}


def calls(source: Path) -> list[tuple[str, ast.Call]]:
    tree = ast.parse(source.read_text())
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_nothing_in_the_product_runs_what_a_file_holds() -> None:
    sources = [*(REPOSITORY / "src").rglob("*.py"), *(REPOSITORY / "scripts").rglob("*.py")]
    found = [(source.name, name, call) for source in sources for name, call in calls(source)]
    assert {(file, name) for file, name, _ in found if name in FORBIDDEN} == ALLOWED
    loads = [call for _, name, call in found if name == "torch.load"]
    assert loads
    for call in loads:
        assert "weights_only=True" in ast.unparse(call)
    assert not [name for _, name, call in found if "shell=True" in ast.unparse(call)]
    imports = {line.strip() for source in sources for line in source.read_text().splitlines() if "pickle" in line}
    assert "from pickle import" not in " ".join(imports)


def test_a_result_holds_no_pickle(model: Path) -> None:
    for file in model.iterdir():
        assert file.suffix in (".json", ".safetensors")
    assert PCAModel.load(model).n_components_ == 3
    assert Projector(model)
