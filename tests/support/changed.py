"""`pytest --changed REV`: the tests of what was changed since REV, nearest first, for at most two minutes.

How near a test is to a change is counted in imports: 0 for a changed file of tests and for the tests that lie where a
changed module does and have its name or its package's, 1 for those that import such a module, 2 for those that import
what imports it. Files that are no Python lead to the tests that name them.
"""

from __future__ import annotations

import ast
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SECONDS = 110  # of a run of tests; what is left then is skipped
FARTHEST = 2
TESTS = ("tests/", "benchmarks/tests/")

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    told = "run the tests of what was changed since this commit, nearest first, for at most two minutes"
    parser.addoption("--changed", metavar="REV", help=told)


def pytest_configure(config: pytest.Config) -> None:
    if revision := config.getoption("--changed"):
        config.pluginmanager.register(Changed(str(revision)), "changed")


class Changed:
    """The part of pytest that selects the tests, and stops in time."""

    def __init__(self, revision: str) -> None:
        self._distances = distances(changed_since(revision), REPOSITORY)
        self._end = time.monotonic() + SECONDS

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        near = [item for item in items if self._distance(item) <= FARTHEST]
        config.hook.pytest_deselected(items=[item for item in items if item not in near])
        items[:] = sorted(near, key=self._distance)

    def pytest_runtest_setup(self) -> None:
        if time.monotonic() > self._end:
            pytest.skip(f"{SECONDS} s are over: make test runs what is left")

    def _distance(self, item: pytest.Item) -> int:
        return self._distances.get(item.path.resolve().relative_to(REPOSITORY).as_posix(), FARTHEST + 1)


def changed_since(revision: str) -> set[str]:
    """Files that differ from a commit, or that git does not know yet."""
    commands = (["diff", "--name-only", revision], ["ls-files", "--others", "--exclude-standard"])
    outputs = [subprocess.check_output(["git", *command], cwd=REPOSITORY, text=True) for command in commands]
    return {line for output in outputs for line in output.splitlines()}


def distances(changed: set[str], repository: Path) -> dict[str, int]:
    """The distance in imports of each Python file from the changed files, if they are connected."""
    sources = {
        path.relative_to(repository).as_posix(): path.read_text("utf-8")
        for folder in ("src/mission9", "tests", "benchmarks", "scripts")
        for path in sorted((repository / folder).rglob("*.py"))
    }
    modules = {module_of(file): file for file in sources}
    importers: dict[str, set[str]] = {}
    for file, text in sources.items():
        for name in imported(ast.parse(text), modules):
            importers.setdefault(modules[name], set()).add(file)
    found = {file: 0 for file in sources if file in changed or any(mirrors(file, other) for other in changed)}
    found |= {file: 1 for file, text in sources.items() if file not in found and names_one_of(file, text, changed)}
    # A fixture's file is imported by nobody, and used by all tests below its folder.
    for file in [file for file in found if file.endswith("/conftest.py")]:
        found |= {other: 1 for other in sources if other.startswith(file[: -len("conftest.py")]) and other not in found}
    nearest = sorted(found, key=lambda file: found[file])
    for file in nearest:  # grows while it is walked
        for importer in sorted(importers.get(file, ())):
            if importer not in found and not importer.endswith("/conftest.py"):
                found[importer] = found[file] + 1
                nearest.append(importer)
    return found


def module_of(file: str) -> str:
    return file.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imported(tree: ast.Module, known: dict[str, str]) -> Iterator[str]:
    """The modules of ours that a file imports, in functions too."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            nearest = name if name in known else name.rpartition(".")[0]
            if nearest in known:
                yield nearest


def mirrors(file: str, module: str) -> bool:
    """True if tests lie where a module does, and have its name or its package's: the tree of tests is the package's."""
    folder, name = Path(file).parent, Path(file).stem
    beside = Path("src/mission9") / folder.relative_to("tests") if file.startswith("tests/") else None
    return Path(module).parent == beside and name in (f"test_{Path(module).stem}", f"test_{folder.name}")


def names_one_of(file: str, text: str, changed: set[str]) -> bool:
    """Return True if tests name a changed file that cannot be imported."""
    others = (Path(other).name for other in changed if not other.endswith(".py"))
    return file.startswith(TESTS) and any(name in text for name in others)
