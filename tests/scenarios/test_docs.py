"""The README and the pages of the docs: their commands and examples run, in order as a reader would, in one folder."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from mission9.config import ENV_PREFIX, RunConfig
from mission9.datasets.demo import SPLITS, VARIETIES
from mission9.errors import REASONS
from mission9.pipeline.run import run
from tests.conftest import REPOSITORY, InProcessRunner
from tests.support.finished import copy_tree, write_fruits

DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", *sorted(DOCS.rglob("*.md"))]

# A block that cannot run here has a comment before it that says why.
_BLOCK = re.compile(r"^(?:<!-- not run: ([^\n]+) -->\n)?```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)

NOT_RUN = {
    "how-to/containers.md": 6,
    "how-to/databricks.md": 1,
    "how-to/emr.md": 3,
    "how-to/fetch.md": 1,
    "how-to/gpu.md": 1,
    "how-to/install.md": 3,
    "how-to/kubernetes.md": 2,
    "how-to/mlflow.md": 1,
    "how-to/own-images.md": 1,
    "how-to/pack.md": 1,
    "how-to/read-results.md": 2,
    "how-to/s3-and-clusters.md": 4,
    "rgpd.md": 1,
    "tutorial.md": 1,
}

# What is run in a checkout alone, and looked at for being there.
_OF_A_CHECKOUT = ("make ", "python benchmarks/")


@dataclass(frozen=True)
class Block:
    """`output` is what the commands before it print, with … for what changes."""

    why_not: str
    language: str
    text: str


def name_of(page: Path) -> str:
    return str(page.relative_to(DOCS if DOCS in page.parents else REPOSITORY))


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in _BLOCK.findall(page.read_text(encoding="utf-8"))]


def run_here(page: Path, language: str) -> str:
    """All of a page's blocks in a language."""
    lines = "".join(block.text for block in blocks(page) if block.language == language and not block.why_not)
    return "".join(line for line in lines.splitlines(keepends=True) if not line.startswith(_OF_A_CHECKOUT))


def of_a_checkout() -> list[str]:
    lines = [line for page in PAGES for block in blocks(page) for line in block.text.splitlines()]
    return sorted({line for line in lines if line.startswith(_OF_A_CHECKOUT)})


@pytest.mark.parametrize("command", of_a_checkout())
def test_targets_and_scripts_exist(command: str) -> None:
    program, *arguments = shlex.split(command, comments=True)
    if program == "make":
        subprocess.run([program, *arguments, "-n"], cwd=REPOSITORY, check=True, capture_output=True)
    else:
        assert (REPOSITORY / arguments[0]).is_file()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_are_of_a_kind_that_is_run_or_say_why_not(page: Path) -> None:
    found = blocks(page)
    assert len(re.findall(r"^\s*```", page.read_text(encoding="utf-8"), flags=re.MULTILINE)) == 2 * len(found)
    assert {block.language for block in found} <= {"bash", "python", "output", "text"}
    assert sum(bool(block.why_not) for block in found) == NOT_RUN.get(name_of(page), 0)


@dataclass(frozen=True)
class Reading:
    """A page's commands and examples, run in one folder, with the lines that they print."""

    commands: str
    examples: str
    prints: tuple[str, ...] = ()


def reading_of(page: Path) -> Reading:
    prints = [line for block in blocks(page) if block.language == "output" for line in block.text.splitlines()]
    return Reading(run_here(page, "bash"), run_here(page, "python"), tuple(prints))


def readings() -> dict[str, Reading]:
    """The blocks of all pages, run independently and concurrently as far as possible."""
    found = {name_of(page): reading_of(page) for page in PAGES}
    found = {name: reading for name, reading in found.items() if reading.commands or reading.examples}
    # The README's first command is the one that takes Spark for a whole run; its examples need none of the others.
    readme = found.pop("README.md")
    assert not readme.prints
    first, _, others = readme.commands.partition("\n")
    assert first == "mission9 demo"
    found |= {"README.md, demo": Reading(first, ""), "README.md, commands": Reading(others, "")}
    found |= {"README.md, examples": Reading("", readme.examples)}
    # The first page of the site has the tutorial's commands once more.
    tutorial, index = found.pop("tutorial.md"), found.pop("index.md")
    assert (index.examples, index.prints) == ("", ())
    found[TUTORIAL] = Reading(tutorial.commands + index.commands, tutorial.examples, tutorial.prints)
    return found


TUTORIAL = "tutorial.md, index.md"
READINGS = readings()
FROM_NOTHING = ("README.md, demo", TUTORIAL)
OF_ALL_IMAGES = ("how-to/estimate.md",)  # whose probe is of 200 images

# Of each variety, in the place of the 30 and 10 that `mission9 demo` draws. What pages say of its 640 images is held
# against what is printed of these: the tutorial is held against all of them.
FEW = {"Training": 4, "Test": 2}


def as_of_few(line: str) -> str:
    """A line of output with the numbers of few images in the place of the demo's, as wide."""
    of_splits = [(len(VARIETIES) * SPLITS[split], len(VARIETIES) * FEW[split]) for split in SPLITS]
    of_all = (sum(all_ for all_, _ in of_splits), sum(few for _, few in of_splits))
    # And of all but one or two, where a page adds, spoils or erases some.
    numbers = {str(all_ - n): str(few - n) for all_, few in (*of_splits, of_all) for n in range(3)}

    def less(match: re.Match[str]) -> str:
        few = numbers.get(match[2], match[2])
        return match[1] + (few.rjust(len(match[2])) if len(match[1]) > 1 else few)

    return re.sub(r"( *)\b(\d+)\b", less, line)


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a reader who has run `mission9 demo`, had it drawn few pictures: one for all of pytest-xdist."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    made, making = folder / "reader", folder / f"reader-{os.getpid()}"
    with (folder / "reader.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            fruits = Path("data/demo/fruits")
            write_fruits(making / fruits, varieties=len(VARIETIES), training=FEW["Training"], test=FEW["Test"])
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(making)
                run(RunConfig(input=str(fruits), output="data/demo/Results", weights="demo"), InProcessRunner())
            making.rename(made)
    return made


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.parametrize("name", READINGS)
def test_commands_and_examples_run(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Few images are no work for Spark, and the tutorial is left to other workers: the README's demo takes Spark."""
    reading, environment, folder = READINGS[name], as_a_reader(tmp_path / "bin"), tmp_path / "reader"
    if name in (*OF_ALL_IMAGES, TUTORIAL):
        environment[f"{ENV_PREFIX}RUNNER"] = "local"
    if name in OF_ALL_IMAGES:
        shutil.copytree(request.getfixturevalue("sample"), folder / "data" / "demo" / "fruits")
    elif name in FROM_NOTHING:
        folder.mkdir()
    else:
        copy_tree(request.getfixturevalue("reader"), folder)
    said = ""
    for command in (["bash", "-euc", reading.commands], [sys.executable, "-c", reading.examples]):
        done = subprocess.run(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert done.returncode == 0, done.stdout
        said += done.stdout
    is_of_all = name in FROM_NOTHING or name in OF_ALL_IMAGES
    assert_says(said, [line if is_of_all else as_of_few(line) for line in reading.prints])


def as_a_reader(programs: Path) -> dict[str, str]:
    """An environment in which `mission9` is this one, installed or not."""
    programs.mkdir()
    program = programs / "mission9"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m mission9 "$@"\n')
    program.chmod(0o755)
    path = os.pathsep.join([str(Path(sys.executable).parent), str(programs), os.environ["PATH"]])
    sources = os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)])
    return os.environ | {"PATH": path, "PYTHONPATH": sources, "SPARK_DRIVER_MEMORY": "2g"}


def assert_says(said: str, lines: list[str]) -> None:
    place = 0
    for line in lines:
        pattern = re.compile("^" + ".*".join(re.escape(part) for part in line.split("…")) + "$", flags=re.MULTILINE)
        found = pattern.search(said, place)
        assert found, f"{line}\nis not in, or not in this order:\n{said}"
        place = found.end()


@pytest.mark.slow
def test_the_site_is_built_without_warnings_and_asks_nothing_of_the_network(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: make docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src"), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= len(PAGES)
    for page in pages:
        loaded = re.findall(
            r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"?((?:https?:)?//[^\"> ]*)", page.read_text()
        )
        assert not loaded, page
    commands = (tmp_path / "site/reference/command-line.html").read_text()
    for name in RunConfig.model_fields:
        assert f"--{name.replace('_', '-')}" in commands, name


def test_the_table_of_settings_tells_names_and_defaults() -> None:
    rows = re.findall(
        r"^\| `--([a-z-]+)` \| `(\w+)` \| ([^|]*) \|", (DOCS / "reference/settings.md").read_text(), flags=re.MULTILINE
    )
    told = {option.replace("-", "_"): (variable, text) for option, variable, text in rows}
    assert set(told) == set(RunConfig.model_fields)
    defaults = RunConfig()
    for name, (variable, text) in told.items():
        assert variable == (RunConfig.model_fields[name].validation_alias or f"{ENV_PREFIX}{name.upper()}")
        value = getattr(defaults, name)
        assert value is None or f"`{value}`" in text, name


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_every_reason_is_explained() -> None:
    page = (DOCS / "reliability.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z_]+)` \|", page, flags=re.MULTILINE)) == set(REASONS)
