"""A result that somebody else made names what it likes: nothing outside of it is read, asked, replaced or deleted."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mission9 import RunConfig, run
from mission9.cli import main
from mission9.output.local import Output
from mission9.output.shards import Shard, commit, features_file
from mission9.schema import FEATURES_TABLE, REJECTS_TABLE
from tests.conftest import InProcessRunner
from tests.support.finished import copy_tree, write_tree

ERASED = "Training/a/0.jpg"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, pictures: list[bytes]) -> Path:
    """A run, in `place/images` and `place/out`, and a copy of both."""
    folder = tmp_path_factory.mktemp("made")
    images = write_tree(folder / "place/images", pictures)
    settings = {"input": str(images), "output": str(folder / "place/out"), "weights": "demo", "components": 3}
    run(RunConfig(**settings), InProcessRunner())
    copy_tree(folder / "place", folder / "as it was")
    return folder


@pytest.fixture
def output(made: Path) -> Path:
    shutil.rmtree(made / "place")
    return copy_tree(made / "as it was", made / "place") / "out"


@pytest.fixture
def others(output: Path) -> Iterator[Path]:
    """A folder of somebody else, beside the output, that is to stay as it is."""
    folder = output.parent / "others"
    (folder / "below").mkdir(parents=True)
    for name in ("a.json", "a.parquet", "done.parquet", "below/part-00000.parquet"):
        (folder / name).write_text(name)
    yield folder
    assert sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()) == [
        *("a.json", "a.parquet", "below/part-00000.parquet", "done.parquet")
    ]


def commands(output: Path) -> list[list[str]]:
    """Those that write."""
    ids = output.parent / "ids.txt"
    ids.write_text(ERASED)
    images = str(output.parent / "images")
    again = ["run", "--input", images, "--output", str(output), "--weights", "demo", "--components", "3", "--no-report"]
    return [["erase", str(output), "--ids", str(ids)], ["erase", str(output), "--older-than", "1e-9"], again]


def change(file: Path, **facts: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_bytes()) | facts))


@pytest.mark.parametrize("number", range(3))
def test_a_fingerprint_names_no_other_folder(
    number: int, output: Path, others: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ready = output / "_state" / "ready"
    ready.mkdir()
    shutil.copy(output / "run.json", ready)
    for name, content in (("tables.json", "[]"), ("checksums.json", "{}"), ("done.parquet", "")):
        (ready / name).write_text(content)
    change(ready / "run.json", fingerprint="../../../others")
    assert main(commands(output)[number]) == 2
    assert "its fingerprint is '../../../others'" in capsys.readouterr().err


def test_a_fingerprint_of_the_result_that_stands_names_none_either(output: Path, others: Path) -> None:
    change(output / "run.json", fingerprint="../../../others")
    assert main(commands(output)[0]) == 2
    assert main(["verify", str(output)]) != 0


LINKS = ("_state", "_state/shards", "_state/shards/*", "_state/receipts", "_state/trash", "_state/shards/*/*.parquet")
TABLES = ("features", "training_pca", "training_pca/label=a", "pca_model", "rejects/part-00000.parquet")


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("name", [*LINKS, *TABLES])
def test_links_lead_nowhere(
    name: str, number: int, output: Path, others: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = next(iter(sorted(output.glob(name))), output / name)
    is_file = link.is_file()
    if link.is_dir():
        shutil.copytree(link, others / "kept", symlinks=True)
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.symlink_to(others / "a.parquet" if is_file else others / "kept" if (others / "kept").exists() else others)
    before = {file: file.read_bytes() for file in others.rglob("*") if file.is_file()}
    assert main(commands(output)[number]) == 2
    assert f"{link} is a symbolic link" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in others.rglob("*") if file.is_file()} == before
    shutil.rmtree(others / "kept", ignore_errors=True)


def test_a_plan_names_no_files_outside(output: Path, others: Path) -> None:
    away = output.parent / "away"
    away.mkdir()
    rows = pa.table(
        {name: pa.nulls(1, kind) for name, kind in zip(FEATURES_TABLE.names, FEATURES_TABLE.types, strict=True)}
    )
    rows = rows.set_column(0, FEATURES_TABLE.field(0), pa.array(["x"]))
    commit(away, Shard(0, "x", "Training", 1), rows.cast(FEATURES_TABLE), REJECTS_TABLE.empty_table())
    file = features_file(away, "x")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1  # damaged, which a run would delete
    file.write_bytes(content)
    (plan,) = (output / "_state/shards").glob("*/done.parquet")
    table = pq.read_table(plan)
    forged = pa.array(["../../../../away/x"] * len(table))
    for column in ("part", "shard"):
        table = table.set_column(table.schema.get_field_index(column), column, forged)
    pq.write_table(table, plan)
    assert main(commands(output)[2]) == 0
    assert file.read_bytes() == content


def test_checksums_name_no_files_outside(output: Path, others: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(output / "_state" / "checksums.json", **{"../others/a.json": "0" * 64})
    assert main(["verify", str(output)]) == 1
    assert "others" not in capsys.readouterr().out
    assert Output(output).checksums() == {}


@pytest.mark.parametrize("command", ["evaluate", "report", "verify"])
def test_a_split_names_no_folder_outside(
    command: str, output: Path, others: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = json.loads((output / "run.json").read_bytes())["splits"]
    change(output / "run.json", splits={"../others/x": splits["Training"]})
    assert main([command, str(output)]) != 0
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    assert told.out + told.err


@contextmanager
def listening() -> Iterator[tuple[int, list[object]]]:
    """A port of the loopback, and who asked there."""
    asked: list[object] = []

    def accept() -> None:
        while True:
            try:
                connection, address = server.accept()
            except OSError:
                return
            asked.append(address)
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1], asked
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    "place",
    [
        *("ftp://127.0.0.1:{}/images", "s3://bucket/images", "zip://::http://127.0.0.1:{}/x.zip"),
        *("simplecache://::http://127.0.0.1:{}/x.zip", "http://127.0.0.1:{}/x"),
    ],
)
def test_nobody_is_asked_for_images_that_the_result_alone_names(
    place: str, output: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with listening() as (port, asked):
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        config = json.loads((output / "run.json").read_bytes())["config"]
        change(output / "run.json", config={**config, "input": place.replace("{}", str(port))})
        assert main(["report", str(output)]) == 0
        assert main(commands(output)[0]) == 0
        assert asked == []
    assert f"only with --input {place.replace('{}', str(port))}" in caplog.text


@pytest.mark.parametrize("link", ["zip://::http://127.0.0.1/x.zip", "zip://a::simplecache::HTTPS://127.0.0.1/x.zip"])
def test_a_web_server_is_none_in_a_chain_of_addresses_either(
    link: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--input", link, "--output", str(tmp_path / "out"), "--weights", "demo"]) == 2
    assert "is on a web server" in capsys.readouterr().err


def test_credentials_are_refused_in_every_link_of_an_address(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = "zip://images::ftp://me:secret@127.0.0.1/x.zip"
    assert main(["run", "--input", link, "--output", str(tmp_path / "out"), "--weights", "demo"]) == 2
    told = capsys.readouterr().err
    assert "credentials are not allowed in a URL" in told
    assert "secret@" not in told


def test_where_images_are_deleted_is_told_before(output: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mission9")
    assert main([*commands(output)[0], "--source"]) == 0
    assert f"deleting 1 images in {output.parent / 'images'}" in caplog.text


def test_in_a_bucket_that_the_result_alone_names_nothing_is_deleted(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((output / "run.json").read_bytes())["config"]
    change(output / "run.json", config={**config, "input": "s3://somebody/images"})
    assert main([*commands(output)[0], "--source"]) == 2
    assert (
        "only the result says that its images are in s3://somebody/images: confirm the deletion with --input"
        in capsys.readouterr().err
    )
