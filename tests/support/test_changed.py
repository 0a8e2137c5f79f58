"""`make test-changed` finds the tests that a change touches."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.changed import distances

FILES = {
    "src/mission9/__init__.py": "",
    "src/mission9/low.py": "",
    "src/mission9/middle.py": "def later():\n    from mission9 import low\n",
    "src/mission9/high.py": "from mission9.middle import later\n",
    "src/mission9/alone.py": "import os\n",
    "src/mission9/room/deep.py": "",
    "src/mission9/room/low.py": "",
    "tests/conftest.py": "from mission9 import low\n",
    "tests/test_low.py": "",
    "tests/test_middle.py": "import mission9.middle\n",
    "tests/test_high.py": "from mission9.high import later\n",
    "tests/test_alone.py": "from mission9 import alone\n",
    "tests/room/test_deep.py": "",
    "tests/room/test_room.py": "",
    "tests/page/conftest.py": "",
    "tests/page/test_page.py": "STYLE = 'style.css'\n",
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def nearest_to(changed: str, repository: Path) -> dict[str, int]:
    found = distances({changed}, repository)
    return {Path(file).stem: distance for file, distance in found.items() if Path(file).name.startswith("test_")}


@pytest.mark.parametrize(
    ("changed", "near"),
    [
        ("src/mission9/low.py", {"test_low": 0, "test_middle": 2, "test_high": 3}),
        ("src/mission9/middle.py", {"test_middle": 0, "test_high": 2}),
        ("src/mission9/alone.py", {"test_alone": 0}),
        ("src/mission9/room/deep.py", {"test_deep": 0, "test_room": 0}),
        ("src/mission9/room/low.py", {"test_room": 0}),
        ("tests/test_high.py", {"test_high": 0}),
        ("tests/page/conftest.py", {"test_page": 1}),
        ("src/mission9/style.css", {"test_page": 1}),
        ("README.md", {}),
    ],
)
def test_the_nearest_tests_are_those_that_import_or_name_what_changed(
    changed: str, near: dict[str, int], repository: Path
) -> None:
    assert nearest_to(changed, repository) == near


def test_tests_of_one_file_are_one_process_s(request: pytest.FixtureRequest) -> None:
    """pytest-xdist writes the group behind a test's name; with a pytest that it does not know, it does so in vain."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("the tests run in one process")
    assert request.node.nodeid.endswith("@test_changed")
