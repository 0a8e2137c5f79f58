"""What is installed is what was meant: pins, hashes, and actions by commit."""

from __future__ import annotations

import re
from importlib.metadata import version

import pytest

from tests.conftest import REPOSITORY

LOCKED = re.compile(r"^(\S+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE)


def pins(name: str) -> dict[str, str]:
    lines = (REPOSITORY / name).read_text().splitlines()
    wanted = (line.partition(";")[0].strip() for line in lines if line and not line.startswith("#"))
    return {
        package.lower().replace("_", "-"): version for package, _, version in (pin.partition("==") for pin in wanted)
    }


@pytest.mark.parametrize("name", sorted(path.name for path in REPOSITORY.glob("requirements*.txt")))
def test_every_requirement_is_one_version(name: str) -> None:
    loose = [package for package, version in pins(name).items() if not re.fullmatch(r"[\w.]+", version)]
    assert not loose


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
