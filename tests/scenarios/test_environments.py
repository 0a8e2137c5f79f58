"""Machines as people have them: variables of others, users and places that are unusual, clocks that are wrong."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from mission9 import RunConfig, SparkImagePipeline, run
from mission9.cli import main
from mission9.cli.console import fail
from mission9.doctor.checks import examine
from mission9.errors import ConfigError, OutputError, SetupError
from mission9.pack.spark_pack import _images, _Top
from mission9.runners.factory import open_runner
from mission9.runners.java import check_user
from mission9.sources.fsspec import _modified
from mission9.sources.layout import Layout
from mission9.storage.local.lock import take_lock, wait_for_lock
from mission9.storage.local.scratch import scratch_folder
from tests.conftest import InProcessRunner
from tests.support.finished import write_tree
from tests.support.hostile import own_mounts

UNKNOWN_USER = ["unshare", "--user", "--map-user=12345", "--map-group=12345", "env", "--unset=HOME"]
LATER_AND_EARLIER = {"0.jpg": 10_413_792_000, "1.jpg": -11_676_096_000}  # 2300 and 1600


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, pictures: list[bytes]) -> RunConfig:
    """A finished run of images with a label beyond ASCII, and of times that no table can hold."""
    folder = tmp_path_factory.mktemp("environments")
    tree = write_tree(folder / "images", pictures)
    for split in ("Training", "Test"):
        (tree / split / "a").rename(tree / split / "Pêche")
    for name, seconds in LATER_AND_EARLIER.items():
        os.utime(tree / "Training" / "b" / name, (seconds, seconds))
    config = RunConfig(input=str(tree), output=str(folder / "out"), weights="demo", components=3, no_report=True)
    run(config, InProcessRunner())
    return config


def test_variables_that_kubernetes_sets_for_a_service_are_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for service in ("MISSION9", "MISSION9_UI", "MISSION9_RUN_1_DRIVER_SVC"):
        for name, value in {
            "SERVICE_HOST": "10.96.0.7",
            "SERVICE_PORT": "80",
            "SERVICE_PORT_HTTP_WEB": "80",
            "PORT": "tcp://10.96.0.7:80",
            "PORT_80_TCP": "tcp://[fd00::7]:80",
            "PORT_80_TCP_PROTO": "tcp",
            "PORT_53_UDP_PORT": "53",
            "PORT_80_TCP_ADDR": "10.96.0.7",
        }.items():
            monkeypatch.setenv(f"{service}_{name}", value)
    assert RunConfig().components == 50


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "80"),
        ("SERVICE_PORT", "http"),
        ("PORT_80", "tcp://1.2.3.4:80"),
        ("SERVICE", "x"),
        ("OUTPUT_PORT_TCP", "1"),
    ],
)
def test_what_only_looks_like_a_service_s_is_told(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"MISSION9_{name}", value)
    with pytest.raises(ConfigError, match=f"MISSION9_{name}, which mission9 does not know"):
        RunConfig()


def test_an_empty_variable_is_as_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, setting in RunConfig.model_fields.items():
        monkeypatch.setenv(str(setting.validation_alias or f"MISSION9_{name.upper()}"), "")
    monkeypatch.setenv("MISSION9_INPTU", "")
    assert RunConfig() == RunConfig.model_construct()
    (tmp_path / "settings.toml").write_text("batch_size = 3\n")
    assert RunConfig(config=tmp_path / "settings.toml").batch_size == 3


def test_a_settings_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("batch_size = 3\n", encoding="utf-8-sig")
    assert RunConfig(config=file).batch_size == 3
    file.write_text("batch_size = 3\n", encoding="utf-16")
    with pytest.raises(ConfigError, match="it is not UTF-8; save it as UTF-8"):
        RunConfig(config=file)


def test_times_that_no_table_can_hold_are_the_nearest_that_can(
    made: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "of Training" in next(found for found in examine(made) if found.what == "input").found
    assert main(["subset", "--input", made.input, "--output", str(tmp_path / "subset"), "--percentage", "50"]) == 0
    assert main(["pack", "--input", made.input, "--output", str(tmp_path / "pack"), "--workers", "1"]) == 0
    assert main(["erase", made.output, "--older-than", "1"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert run(made, InProcessRunner()).images_inferred == 0
    latest = (1 << 63) - 1
    assert _modified({"mtime": 10_413_792_000}) == _modified({"mtime": datetime(2300, 1, 1)}) == latest
    assert _modified({"mtime": -11_676_096_000.0}) == -latest
    assert _modified({"mtime": float("inf")}) == 0
    times = pa.array([seconds * 1_000_000 for seconds in LATER_AND_EARLIER.values()], pa.timestamp("us", "UTC"))
    columns = {"path": ["/in/a/0.jpg", "/in/a/1.jpg"], "modificationTime": times, "content": [b"x", b"y"]}
    read = _images(pa.record_batch(columns), _Top("/in/", "in", Layout()))
    assert [image.row.modified for image in read] == [latest, -latest]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_an_output_of_few_letters_gets_what_it_can_hold(
    encoding: str, options: list[str], made: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding=encoding))
    assert main(["evaluate", made.output, *options]) == 0
    sys.stdout.flush()
    text = out.getvalue().decode(encoding)
    if options:
        assert "Pêche" in str(json.loads(text))
    else:
        assert ("Pêche" if encoding == "latin-1" else r"P\xeache") in text


def test_a_name_between_colons_is_no_picture_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    fail("there is no folder photos/:apple:/:x:", 1)
    assert capsys.readouterr().err == "mission9: there is no folder photos/:apple:/:x:\n"


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_as_that(
    code: int,
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    told = f"the file system of .*/x has no locks .*{os.strerror(code)}.*NFS"
    with pytest.raises(OutputError, match=told):
        take_lock(tmp_path / "x" / "lock", "held")
    with pytest.raises(OutputError, match=told):
        wait_for_lock(tmp_path / "x" / "lock")
    with pytest.raises(OutputError, match="has no locks"):
        run(RunConfig(input=str(tree), output=str(tmp_path / "out"), weights="demo"), InProcessRunner())
    assert main(["pack", "--input", str(tree), "--output", str(tmp_path / "pack")]) == 2
    assert "has no locks" in capsys.readouterr().err
    with scratch_folder() as folder:
        assert folder.is_dir()


def test_a_user_whom_the_system_does_not_know_is_told_before_java_is(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(SetupError, match="user 12345 has no entry in /etc/passwd, .*: add one"):
        check_user()
    for runner, status in (("auto", "warning"), ("spark", "problem"), ("local", "ok")):
        config = RunConfig(input=str(tree), output=str(tmp_path / "out"), weights="demo", runner=runner, workers=1)
        (finding,) = [finding for finding in examine(config) if finding.what == "java"]
        assert finding.status == status
        assert runner == "local" or finding.remedy.startswith("add one (echo mission9:x:12345:")
    monkeypatch.setattr("mission9.runners.factory._has_session", lambda: False)
    caplog.set_level("INFO")
    with open_runner(RunConfig(workers=1)):
        assert "user 12345 has no entry in /etc/passwd" in caplog.text
        assert "1 worker processes, without Spark" in caplog.text


@pytest.mark.slow
def test_a_user_whom_the_system_does_not_know_gets_a_result(tree: Path, tmp_path: Path) -> None:
    if subprocess.run([*UNKNOWN_USER, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine gives no user namespaces")
    command = ["run", "--input", str(tree), "--weights", "demo", "--components", "3"]
    program = [*UNKNOWN_USER, sys.executable, "-m", "mission9"]
    done = subprocess.run(
        [*program, *command, "--output", str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    spark = [*program, *command, "--output", str(tmp_path / "spark"), "--runner", "spark"]
    done = subprocess.run(spark, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("mission9: user 12345 has no entry in /etc/passwd")


@pytest.mark.slow
def test_shared_memory_that_cannot_be_used_is_told_as_that(tree: Path, tmp_path: Path) -> None:
    own_mounts()
    words = ["run", "--input", str(tree), "--output", str(tmp_path / "out"), "--weights", "demo"]
    words += ["--runner", "local", "--components", "3"]
    script = 'mount -t tmpfs -o ro none /dev/shm; exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-m", "mission9", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "mission9: worker processes share memory in /dev/shm: it cannot be written (Read-only file system): mount"
    )


@pytest.mark.slow
def test_there_are_no_more_tasks_than_images(tree: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mission9.spark_pipeline.parallelism", lambda _: 100)
    with SparkImagePipeline(weights="demo") as pipeline:
        assert pipeline.load_images(str(tree)).rdd.getNumPartitions() == 15
