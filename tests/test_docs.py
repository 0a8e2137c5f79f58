"""The README and the pages of the docs: their commands and examples run, in order as a reader would, in one folder."""

from __future__ import annotations

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
from mission9.errors import REASONS
from tests.conftest import REPOSITORY

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
    "how-to/install.md": 2,
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


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a reader has run `mission9 demo`."""
    folder = tmp_path_factory.mktemp("reader")
    command = [sys.executable, "-m", "mission9", "demo"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src"), f"{ENV_PREFIX}RUNNER": "local"}
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)
    return folder


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if run_here(page, "bash") or run_here(page, "python")], ids=name_of
)
def test_commands_and_examples_run(page: Path, demo: Path, tmp_path: Path) -> None:
    environment = as_a_reader(tmp_path / "bin")
    if page.parent != REPOSITORY:  # the README has shown Spark; without it, pages take a third of the time
        environment[f"{ENV_PREFIX}RUNNER"] = "local"
    folder = tmp_path / "reader"
    folder.mkdir()
    if "mission9 demo" not in run_here(page, "bash"):
        shutil.copytree(demo, folder, dirs_exist_ok=True)
    said = ""
    for command in (["bash", "-euc", run_here(page, "bash")], [sys.executable, "-c", run_here(page, "python")]):
        done = subprocess.run(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert done.returncode == 0, done.stdout
        said += done.stdout
    assert_says(
        said, [line for block in blocks(page) if block.language == "output" for line in block.text.splitlines()]
    )


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
