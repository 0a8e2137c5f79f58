"""Results in one more store than folders and buckets: one adapter, and nothing else in the package, knows of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mission9 import Results, RunConfig, run
from mission9.cli import main
from mission9.output import open as places
from mission9.output.layout import PAGE
from mission9.output.local import Output
from mission9.output.open_local import open_local_output
from mission9.output.place import FolderPlace
from mission9.storage import location
from mission9.storage.file_store import FileStore, FolderStore
from tests.conftest import InProcessRunner

Content = dict[str, bytes]  # by the paths of the files below an address


@dataclass(frozen=True)
class MemoryOutput(Output):
    """An output that is worked on in a folder, and kept in memory."""

    address: str

    @property
    def place(self) -> str:
        return self.address


@dataclass(frozen=True)
class MemoryPlace(FolderPlace):
    """The results at an address, which are worked on and read in a folder."""

    address: str = ""
    content: Content = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.address

    @contextmanager
    def open(self, *, overwrite: bool) -> Iterator[Output]:
        self.result()
        with open_local_output(self.root, overwrite=overwrite) as output:
            yield MemoryOutput(output.root, self.name)
        self.keep()

    def exists(self) -> bool:
        return bool(self.content)

    def result(self, *, to_verify: bool = False) -> Path:  # noqa: ARG002
        for name, content in self.content.items():
            file = self.root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return self.root

    def state_files(self) -> FileStore:
        return FolderStore(self.result() / "_state")

    def put_page(self, folder: Path) -> str:  # noqa: ARG002
        self.keep()
        return f"{self.name}/{PAGE}"

    def keep(self) -> None:
        files = (file for file in self.root.rglob("*") if file.is_file())
        self.content.clear()
        self.content.update({file.relative_to(self.root).as_posix(): file.read_bytes() for file in files})


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Content]:
    """A store by the scheme mem://, and all that is in it."""
    store: dict[str, Content] = {}

    def place(address: str) -> MemoryPlace:
        return MemoryPlace(tmp_path / "scratch", address=address, content=store.setdefault(address, {}))

    monkeypatch.setitem(places.STORES, "mem", place)
    monkeypatch.setattr(location, "WRITABLE", location.WRITABLE | {"mem"})
    return store


def test_one_adapter_takes_results_to_another_store(
    memory: dict[str, Content], tree: Path, tmp_path: Path, in_process: InProcessRunner, capsys: Any
) -> None:
    address, folder = "mem://bucket/results", tmp_path / "folder"
    for output in (address, str(folder)):
        run(RunConfig(input=str(tree), output=output, weights="demo", components=2, max_reject_rate=0.5))
    found, wanted = Results.of(address), Results.of(folder)
    for split in wanted.splits:
        np.testing.assert_array_equal(found.scores(split).pca, wanted.scores(split).pca)
    assert main(["verify", address]) == 0
    assert main(["report", address]) == 0
    assert f"{address}/{PAGE}: " in capsys.readouterr().out
    first = str(wanted.scores(wanted.splits[0]).paths[0])
    (tmp_path / "ids").write_text(f"{first}\n")
    assert main(["erase", address, "--ids", str(tmp_path / "ids")]) == 0
    assert main(["verify", address]) == 0
    assert first not in Results.of(address).scores(wanted.splits[0]).paths
    assert not folder.with_name("mem:").exists()
    assert set(memory) == {address}
    assert not any(first.encode() in content for content in memory[address].values())
