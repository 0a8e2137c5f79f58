"""With `--encrypt-key` no Parquet file can be read without the key, in the output or in its state."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from mission9.cli import main
from mission9.config import RunConfig
from mission9.crypto.parquet import encrypted_by, is_encrypted
from mission9.erasure.erase import erase
from mission9.erasure.selection import ErasureRequest
from mission9.errors import ConfigError
from mission9.output.tables import read_table
from mission9.pipeline.run import run
from mission9.results.reader import Results
from mission9.results.verify import verify_output
from mission9.storage.local.files import file_sha256
from tests.support.finished import copy_tree, write_tree

pytest.importorskip("cryptography", reason="cryptography is not installed: pip install 'mission9[encryption]'")

KEY, OTHER = "planted-secret-of-this-test", "another key of so many letters"
ERASED = ["Training/a/1.jpg", "Test/b/0.jpg"]


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TABLES_KEY", KEY)
    return "env:TABLES_KEY"


def run_into(output: Path, images: Path, key: str | None, *, no_report: bool = False) -> Any:
    settings: dict[str, Any] = {"weights": "demo", "components": 3, "encrypt_key": key, "no_report": no_report}
    return run(RunConfig(input=str(images), output=str(output), **settings))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, pictures: list[bytes]) -> Path:
    """The tree in `images`, an encrypted result of it in `out`, and a plain one in `plain`."""
    folder = tmp_path_factory.mktemp("encrypted")
    write_tree(folder / "images", pictures)
    (folder / "key").write_text(KEY)
    run_into(folder / "out", folder / "images", str(folder / "key"))
    run_into(folder / "plain", folder / "images", None, no_report=True)
    return folder


@pytest.fixture
def tree(finished: Path) -> Path:
    """The images, which no test here changes."""
    return finished / "images"


@pytest.fixture
def output(finished: Path, key: str, tmp_path: Path) -> Path:
    return copy_tree(finished / "out", tmp_path / "out")


@pytest.fixture
def plain(finished: Path, tmp_path: Path) -> Path:
    return copy_tree(finished / "plain", tmp_path / "plain")


def parquet_files(output: Path) -> list[Path]:
    return sorted(output.rglob("*.parquet"))


def test_no_file_can_be_read_without_the_key(output: Path, tree: Path, tmp_path: Path) -> None:
    assert len(parquet_files(output)) > 8
    names = [str(path.relative_to(tree)).encode() for path in tree.rglob("*.jpg")]
    for file in parquet_files(output):
        with pytest.raises(OSError, match="encrypted"):
            pq.read_table(file)
    # Nor a part of the key, in another way of writing.
    keys = [KEY.encode(), KEY.encode().hex()[:16].encode(), base64.b64encode(KEY.encode())[:16]]
    for file in (path for path in output.rglob("*") if path.is_file()):
        content = file.read_bytes()
        assert not [name for name in [*names, *keys] if name in content], file
    assert not list(output.rglob("*.csv"))
    assert not (output / "report.html").exists()


def test_with_the_key_it_is_the_same_result(
    output: Path, plain: Path, tree: Path, key: str, monkeypatch: pytest.MonkeyPatch, capsys: Any, caplog: Any
) -> None:
    wanted = Results.of(plain)
    monkeypatch.setenv("MISSION9_ENCRYPT_KEY", key)
    found = Results.of(output)
    for split in wanted.splits:
        np.testing.assert_allclose(found.scores(split).pca, wanted.scores(split).pca, rtol=1e-4, atol=1e-4)
    assert main(["verify", str(output)]) == 0
    assert main(["evaluate", str(output)]) == 0
    assert main(["report", str(output)]) == 0  # asked for, it is written
    assert "report.html shows the content of encrypted tables in clear" in caplog.text
    assert run_into(output, tree, key).images_inferred == 0


def test_without_the_key_a_sentence_says_so(output: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "ids.txt").write_text("\n".join(ERASED))
    for command in (
        ["verify", str(output)],
        ["evaluate", str(output)],
        ["report", str(output)],
        ["erase", str(output), "--ids", str(tmp_path / "ids.txt")],
    ):
        assert main(command) == 2, command
        words = capsys.readouterr().err
        assert "encrypted: set MISSION9_ENCRYPT_KEY to env:NAME or to a file with its key" in words
        assert KEY not in words


def test_another_key_is_told(output: Path, tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("TABLES_KEY", OTHER)
    monkeypatch.setenv("MISSION9_ENCRYPT_KEY", "env:TABLES_KEY")
    assert main(["verify", str(output)]) == 2
    assert "encrypted with another key" in capsys.readouterr().err


def test_encrypted_and_plain_tables_do_not_mix(output: Path, plain: Path, tree: Path, key: str) -> None:
    with pytest.raises(ConfigError, match="is encrypted: pass its key with --encrypt-key"):
        run_into(output, tree, None)
    before = {file: file_sha256(file) for file in parquet_files(plain)}
    with pytest.raises(ConfigError, match="is not encrypted: pass another --output"):
        run_into(plain, tree, key)
    assert {file: file_sha256(file) for file in parquet_files(plain)} == before


def test_images_are_erased_from_it(output: Path, tree: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MISSION9_ENCRYPT_KEY", key)
    receipt = erase(str(output), ErasureRequest("erase", ERASED))
    assert receipt is not None
    assert receipt.result["model"] == "moments of the erased images subtracted, refitted"
    assert all(is_encrypted(file.parent) for file in parquet_files(output))
    for file in parquet_files(output):
        assert not [name for name in ERASED if name in repr(read_table(file).to_pylist())]
    assert list(verify_output(str(output))) == []
    assert erase(str(output), ErasureRequest("erase", ERASED)) is None


@pytest.mark.slow
def test_worker_processes_encrypt_too(tree: Path, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text(KEY)
    settings: dict[str, Any] = {"weights": "demo", "components": 3, "runner": "local", "workers": 1}
    run(RunConfig(input=str(tree), output=str(tmp_path / "out"), encrypt_key=str(tmp_path / "key"), **settings))
    assert {file.read_bytes()[:4] for file in parquet_files(tmp_path / "out")} == {b"PARE"}
    monkeypatch.setenv("MISSION9_ENCRYPT_KEY", key)
    assert list(verify_output(str(tmp_path / "out"))) == []


def test_a_key_is_needed_before_anything_is_written(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the environment variable NONE is not set"):
        run_into(tmp_path / "out", tree, "env:NONE")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="only results in a folder"):
        RunConfig(output="s3://some/results", encrypt_key="env:NONE")
    with pytest.raises(ConfigError), encrypted_by("env:NONE"):
        pass
