"""The supply chain: pins, hashes, and actions by commit."""

from __future__ import annotations

import re
import sys
from importlib.metadata import distributions, version

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from tests.conftest import REPOSITORY

LOCKED = re.compile(r"^(\S+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE)


# The last that the oldest Python takes, of packages that are not installed with the tests; `make lock` asks of all.
LAST = {"soupsieve": Version("2.10"), "pymdown-extensions": Version("12.3")}


def pins(name: str) -> dict[str, str]:
    lines = (REPOSITORY / name).read_text().splitlines()
    wanted = (line.partition(";")[0].strip() for line in lines if line and not line.startswith("#"))
    return {
        package.lower().replace("_", "-"): version for package, _, version in (pin.partition("==") for pin in wanted)
    }


REQUIREMENTS = sorted(path.name for path in REPOSITORY.glob("requirements*.txt"))


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_every_requirement_is_one_version(name: str) -> None:
    loose = [package for package, version in pins(name).items() if not re.fullmatch(r"[\w.]+", version)]
    assert not loose


def test_every_pin_installs_on_the_oldest_python_that_is_promised() -> None:
    promised = re.search(r'requires-python = ">=([\d.]+)"', (REPOSITORY / "pyproject.toml").read_text())
    assert promised is not None
    oldest = f"{promised[1]}.0"  # its first patch: Debian 12 has 3.11.2, and some packages want a later one
    wanted = {(name, version) for file in REQUIREMENTS for name, version in pins(file).items()}
    refused = {f"{name}=={version}" for name, version in wanted if not _takes(name, version, oldest)}
    assert not refused


def _takes(name: str, pinned: str, python: str) -> bool:
    """Return True if a distribution supports a version of Python, as far as it is installed anywhere here."""
    environments = [str(path) for path in REPOSITORY.glob(".venv*/lib/python*/site-packages")]
    for found in distributions(name=name, path=[*sys.path, *environments]):
        # Not by [...]: a finder that some packages put in place raises an error where the line is absent.
        needs = found.metadata.get_all("Requires-Python") or []
        if found.version.partition("+")[0] == pinned and not all(SpecifierSet(n).contains(python) for n in needs):
            return False
    return name not in LAST or Version(pinned) <= LAST[name]


def test_no_pin_is_overruled_by_what_another_package_asks_for() -> None:
    wanted = pins("requirements.txt") | pins("requirements-dev.txt")
    assert {package: version(package).partition("+")[0] for package in wanted} == wanted


def test_the_lock_holds_every_requirement_at_its_version_with_hashes_and_nothing_else() -> None:
    text = (REPOSITORY / "requirements.lock").read_text()
    locked = {package: version for package, version, _ in LOCKED.findall(text)}
    assert pins("requirements.txt").items() <= locked.items()
    assert all(line.startswith("#") for line in LOCKED.sub("", text).splitlines())


def test_actions_are_named_by_commit() -> None:
    workflows = list((REPOSITORY / ".github" / "workflows").glob("*.yml"))
    used = [action for file in workflows for action in re.findall(r"uses: (.*)", file.read_text())]
    assert used
    assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", action) for action in used)
