from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from scripts.imports import ORDER, back_arrows, circles, floors, imports, modules, room_of

import mission9

GRAPH = imports(modules())


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert circles(GRAPH) == []


def test_imports_lead_down() -> None:
    assert set(map(room_of, GRAPH)) == set(ORDER)
    assert back_arrows(GRAPH) == []
    assert floors(GRAPH) <= 11


@pytest.mark.parametrize(
    ("room", "below"),
    [("storage", {"concurrency", "errors"}), ("config", {"options", "errors", "schema", "storage"})],
)
def test_the_ground_imports_little(room: str, below: set[str]) -> None:
    found = {room_of(other) for module, others in GRAPH.items() if room_of(module) == room for other in others}
    assert found - {room} == below


def roots_imported(file: Path) -> set[str]:
    """The first names of what a file imports, within functions too."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.partition(".")[0] for name in names}


def test_no_test_imports_the_benchmarks() -> None:
    """Their own tests lie beside them; what both take lies in tests/support."""
    folder = Path(__file__).parent
    importing = {file.relative_to(folder) for file in folder.rglob("*.py") if "benchmarks" in roots_imported(file)}
    assert not importing


def modules_after(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_package_costs_neither_torch_nor_spark() -> None:
    loaded = modules_after("import mission9")
    assert not loaded & {"torch", "pyspark", "openvino", "pandas", "numpy", "pyarrow"}


def test_the_command_line_starts_without_the_heavy_packages() -> None:
    heavy = {"torch", "pyspark", "openvino", "pandas", "boto3", "obstore", "cryptography"}
    assert not modules_after("import mission9.cli") & heavy


def test_a_command_imports_pandas_only_for_a_conversion_to_it() -> None:
    statement = (
        "import pyarrow as pa, sys; from mission9.runners.environment import defer_pandas; defer_pandas();"
        "table = pa.table({'a': ['x']}); early = 'pandas' in sys.modules; print(early, list(table.to_pandas()['a']));"
        "print(pa.array(sys.modules['pandas'].Series([1.5, float('nan')])).null_count)"
    )
    said = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True, check=True).stdout
    assert said == "False ['x']\n1\n"


def test_nobody_is_told_that_openvino_is_used(tmp_path: Path) -> None:
    statement = "import mission9.models.engines.openvino_engine, sys; print(*sys.modules)"
    environment = os.environ | {"HOME": str(tmp_path), "CI": "", "TF_BUILD": "", "JENKINS_URL": ""}
    command = [sys.executable, "-c", statement]
    loaded = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    assert "openvino" in loaded
    assert not [module for module in loaded if module.startswith("openvino_telemetry.")]
    assert not list(tmp_path.iterdir())  # where it would keep the number that it knows this user by


def test_the_worker_needs_no_torch_with_openvino() -> None:
    loaded = modules_after(
        "from mission9.stages import extract_shard; from mission9.models.engines import EngineSpec, make_engine;"
        "from mission9.models.weights import load_weights;"
        "make_engine(EngineSpec(engine='openvino', device='cpu'), load_weights('demo'), threads=1)"
    )
    assert "openvino" in loaded
    assert not loaded & {"torch", "pyspark"}


# A machine with a GPU and little else: torch, numpy, Pillow, pyarrow and safetensors, no more.
ABSENT = (
    "cyclopts", "openvino", "pooch", "py4j", "pydantic", "pydantic_core", "pydantic_settings", "pyspark",
    "requests", "rich",
)  # fmt: skip

INFERENCE = """
import sys
for name in sys.argv[1:]:
    sys.modules[name] = None  # importing it fails
import mission9.devices, mission9.models.preprocess, mission9.decoding.decode
from mission9.models.engines import choose_engine
from mission9.datasets.demo import VARIETIES, draw, jpeg
from mission9.models.extraction import Extraction
from mission9.stages.infer_features import infer_features
from mission9.stages.prepare_images import ImageRow
from mission9.decoding.pixels import pixels_digest
from mission9.models.weights import load_weights

extraction = Extraction(
    engine=choose_engine(engine="torch", device="cpu"),
    weights=load_weights("demo"), preprocess="stretch", max_pixels=10**6, max_bytes=10**6,
    pixels=pixels_digest(),
)
contents = [jpeg(draw(variety, stream=0, number=0)) for variety in VARIETIES[:3]] + [b"bad"]
rows = [ImageRow(f"{n}", "all", "a", len(content), content=content) for n, content in enumerate(contents)]
for batch in infer_features(rows, extraction):
    for row in batch.to_pylist():
        print(row["path"], row["reason"], len(row["features"] or []))
"""


@pytest.mark.slow
def test_torch_infers_where_only_what_it_needs_is_installed() -> None:
    done = subprocess.run([sys.executable, "-c", INFERENCE, *ABSENT], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["0 None 1280", "1 None 1280", "2 None 1280", "3 not_an_image 0"], done.stderr


# The questions what kind of place a text names, and the modules that may ask: they make the ports that all others take.
KINDS = re.compile(r"\b(is_s3|is_url|is_index|scheme_of)\(")
FACTORIES = {"storage/location.py", "storage/file_store.py", "sources/__init__.py", "output/open.py"}
DEFINITIONS = {"storage/s3/address.py", "sources/pack/layout.py"}


def test_no_stage_resolves_a_place() -> None:
    """Stages take a `Root`, an output and a model, which the pipeline made once of the texts that a user gave."""
    package = Path(mission9.__file__).parent / "stages"
    resolves = re.compile(r"\b(find_root|resolve_root|output_at|existing_output|address_of|local_path)\b")
    files = list(package.glob("*.py"))
    assert len(files) > 15
    assert [file.name for file in files if resolves.search(file.read_text())] == []


def test_four_modules_ask_what_kind_of_place_a_text_names() -> None:
    package = Path(mission9.__file__).parent
    asking = {file.relative_to(package).as_posix() for file in package.rglob("*.py") if KINDS.search(file.read_text())}
    assert asking == FACTORIES | DEFINITIONS
