"""The content of an audit record: time, user, counts, and settings only as a hash."""

from __future__ import annotations

import getpass
import json
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mission9.output.audit_log import append, verify
from mission9.output.layout import AUDIT_LOG
from mission9.output.run_report import Report, SplitCounts
from mission9.output.tombstones import Tombstones
from mission9.storage.file_store import MAX_BYTES, FolderStore


def report_of(place: str) -> Report:
    counts = {"Training": SplitCounts(listed=5, featured=3, rejected=2, reasons={"empty": 2})}
    return Report(config={"input": place}, fingerprint="f", weights={}, engine={}, splits=counts, skipped={".txt": 4})


def test_a_record_says_when_and_who(tmp_path: Path) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)  # times are told in whole seconds
    append(FolderStore(tmp_path), "run", report_of("people").audited())
    record = json.loads((tmp_path / AUDIT_LOG).read_bytes())
    assert record["by"] == f"{getpass.getuser()}@{socket.gethostname()}"
    assert before <= datetime.fromisoformat(record["time"]) <= datetime.now(UTC)


def test_a_user_without_a_name_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("no such user")

    monkeypatch.setattr(getpass, "getuser", nobody)
    append(FolderStore(tmp_path), "run", {})
    assert json.loads((tmp_path / AUDIT_LOG).read_bytes())["by"] == f"unknown@{socket.gethostname()}"


def test_a_record_has_counts_and_no_settings_but_their_hash(tmp_path: Path) -> None:
    for place in ("people/Alice", "people/Alice", "people/Bob"):
        append(FolderStore(tmp_path), "run", report_of(place).audited())
    content = (tmp_path / AUDIT_LOG).read_text()
    assert "people" not in content
    first, second, third = map(json.loads, content.splitlines())
    assert (first["listed"], first["featured"], first["rejected"], first["skipped"]) == (5, 3, 2, 4)
    assert len(first["settings_sha256"]) == 64
    assert first["settings_sha256"] == second["settings_sha256"] != third["settings_sha256"]


def test_a_log_that_grows_while_it_is_checked_is_whole(tmp_path: Path) -> None:
    records_to_add = ["one"]

    class Growing(FolderStore):
        """Another process adds a record, and notes it, between the first read and the next."""

        def read(self, name: str, max_bytes: int = MAX_BYTES) -> bytes | None:
            content = super().read(name, max_bytes)
            if records_to_add:
                records_to_add.clear()
                Tombstones(audit=append(self, "run", {})).save(self)
            return content

    report = {"audit": append(FolderStore(tmp_path), "run", {})}
    assert list(verify(Growing(tmp_path), report)) == []
