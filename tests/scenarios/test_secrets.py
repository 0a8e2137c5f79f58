"""Through the command line: no name forges a line of what is told, and no secret is told at all."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support import held_up
from tests.support.forks import Forks

pytestmark = pytest.mark.xdist_group("test_secrets")  # which has one process that forks

FORGED = "FORGED: all is well"
EVIL = f"x\n{FORGED}\r{FORGED}\x1b[2J\x1b]0;{FORGED}\x07\u2028{FORGED}\u202e"

# A secret for each way in; none of them may come out anywhere.
CANARIES = [f"c4nary{number:02d}" for number in range(24)]
ENVIRONMENT = dict(
    zip(
        (
            "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MLFLOW_TRACKING_USERNAME",
            "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN", "HF_TOKEN", "GITHUB_TOKEN",
            "AZURE_STORAGE_KEY", "GOOGLE_API_KEY", "DATABASE_PASSWORD",
        ),
        CANARIES,
        strict=False,
    )
)  # fmt: skip
USER, SIGNATURE, TOKEN = CANARIES[12:15]
CONF = {
    "spark.hadoop.fs.s3a.secret.key": CANARIES[15],
    "spark.hadoop.fs.s3a.access.key": CANARIES[16],
    "spark.executorEnv.MY_TOKEN": CANARIES[17],
    "spark.my.store": f"https://me:{CANARIES[18]}@host/x",
    "spark.my.other.store": f"https://host/x?X-Amz-Signature={CANARIES[19]}",
}
SUBMIT = " ".join(f"--conf {name}={value}" for name, value in CONF.items()) + " pyspark-shell"


def url(name: str) -> str:
    return f"https://me:{USER}@host/{name}?X-Amz-Signature={SIGNATURE}&token={TOKEN}"


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as started:
        yield started


def ended(forks: Forks, *arguments: str, cwd: Path | None = None, **more: str) -> tuple[int, str]:
    """The exit code of a command, and all that it told."""
    done = forks.run(*arguments, cwd=cwd and str(cwd), environment=more)
    return done.returncode, done.stdout + done.stderr


def check_lines(told: str) -> None:
    lines = told.splitlines()
    assert not [line for line in lines if line.startswith(FORGED)], lines
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", told), told
    assert "\u202e" not in told
    assert "\ufffd" not in told  # which stands for what is no UTF-8


@pytest.fixture
def evil_tree(tmp_path: Path, pictures: list[bytes]) -> Path:
    root = tmp_path / EVIL / "in"
    for number, data in enumerate([*pictures, b"no picture"]):
        folder = root / f"{number % 3}{EVIL}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}{EVIL}.jpg").write_bytes(data)
    (root / f"a.txt\n{FORGED}").write_text("no image")
    return root


@pytest.mark.slow
def test_names_forge_no_lines_of_a_run_and_a_check(forks: Forks, evil_tree: Path, tmp_path: Path) -> None:
    output = tmp_path / EVIL / "out"
    command = ["run", "--input", str(evil_tree), "--output", str(output), "--weights", "demo", "--components", "2"]
    code, told = ended(forks, *command)
    assert code == 3  # one of eleven was rejected
    assert "not_an_image" in told
    check_lines(told)
    code, told = ended(forks, *command, "--max-reject-rate", "0.5")
    assert code == 0
    assert "FORGED" in told  # the input's name, escaped
    check_lines(told)
    for file in output.glob("all_pca/*/*.parquet"):
        file.write_bytes(b"damaged")
    code, told = ended(forks, "verify", str(output))
    assert code == 1
    assert told.count(" is damaged") == 3
    check_lines(told)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--input", EVIL],
        ["run", "--weights", EVIL],
        ["run", "--config", EVIL],
        ["run", "--pca-model", EVIL, "--weights", "demo"],
        ["run", "--master", f"local[0]{EVIL}", "--runner", EVIL],
        ["run", "--components", EVIL],
        ["run", f"--{EVIL}", "1"],
        [EVIL],
        ["project", "--model", EVIL, "x.jpg"],
        ["verify", EVIL],
        ["subset", "--input", EVIL, "--all"],
        ["subset", "--percentage", EVIL],
    ],
)
def test_mistakes_forge_no_lines(forks: Forks, arguments: list[str], tree: Path, tmp_path: Path) -> None:
    given = arguments if "--input" in arguments or arguments[0] != "run" else [*arguments, "--input", str(tree)]
    code, told = ended(forks, *given, cwd=tmp_path)
    assert code in (1, 2)
    check_lines(told)


def test_the_environment_forges_no_lines(tmp_path: Path) -> None:
    """Of a command as others start it."""
    environment = os.environ | {f"MISSION9_{EVIL}": "1"}
    command = [sys.executable, "-m", "mission9", "run"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False, timeout=180)
    assert done.returncode == 2
    check_lines((done.stdout + done.stderr).decode())


@pytest.mark.slow
@pytest.mark.spark
def test_spark_forges_no_lines_and_tells_no_users(forks: Forks, tree: Path, tmp_path: Path) -> None:
    command = ["run", "--input", str(tree), "--output", str(tmp_path / "out"), "--weights", "demo"]
    command += ["--components", "3", "--runner", "spark"]
    for master in (f"nonsense://me:{USER}@host/{EVIL}", f"spark://me:{USER}@127.0.0.1:x{EVIL}"):
        code, told = ended(forks, *command, "--master", master)
        assert code == 1
        assert "Spark does not start" in told
        assert USER not in told
        check_lines(told)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--input", url("images")],
        ["--weights", url("w.pth")],
        ["--output", url("x" * 300)],
        ["--pca-model", url("model"), "--weights", "demo"],
        ["--config", url("settings.toml")],
        ["--components", url("x")],
        ["--runner", url("x")],
        ["--nonsense", url("x")],
    ],
)
def test_mistakes_tell_no_secrets(forks: Forks, arguments: list[str], tree: Path, tmp_path: Path) -> None:
    given = arguments if "--input" in arguments else [*arguments, "--input", str(tree)]
    code, told = ended(forks, "run", *given, cwd=tmp_path, **ENVIRONMENT)
    assert code == 2
    check_secrets("what was told", told)


@pytest.mark.parametrize(
    "line",
    [
        f'aws_secret_access_key = "{CANARIES[20]}"',
        f'input = {{password = "{CANARIES[20]}"}}',
        f'output = ["{url("x")}"]',
    ],
)
def test_settings_files_tell_no_secrets(forks: Forks, line: str, tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(f"# {CANARIES[21]}\n{line}\n")
    code, told = ended(forks, "run", "--config", "settings.toml", cwd=tmp_path)
    assert code == 2
    check_secrets("what was told", told)


def test_a_spark_server_that_is_none_is_told_without_its_token(forks: Forks, tree: Path, tmp_path: Path) -> None:
    command = ["run", "--input", str(tree), "--output", str(tmp_path / "out"), "--weights", "demo"]
    command += ["--components", "3"]
    code, told = ended(forks, *command, "--master", f"sc://127.0.0.1:1/;token={TOKEN}")
    assert code == 1
    assert "Traceback" not in told
    check_secrets("what was told", told)


@pytest.fixture
def secret_tree(tree: Path, tmp_path: Path) -> Path:
    """The images under a path that is a URL with secrets to whoever looks at it."""
    place = tmp_path / os.path.normpath(url("images"))
    place.parent.mkdir(parents=True)
    tree.rename(place)
    return tmp_path


def run_options(*more: str) -> list[str]:
    files = [
        "--input",
        f"./{url('images')}",  # a folder, and no address
        "--output",
        f"./{url('out')}",
        "--weights",
        f"./{url('w').replace('?', '/w?')}.safetensors",
    ]
    return ["run", *files, "--components", "3", *more]


@pytest.mark.slow
def test_a_run_and_its_results_hold_no_secrets(forks: Forks, secret_tree: Path, demo_weights_file: bytes) -> None:
    weights = secret_tree / os.path.normpath(run_options()[6])
    weights.parent.mkdir(parents=True)
    weights.write_bytes(demo_weights_file)
    for options in (["--runner", "local", "--workers", "1"], ["--overwrite"]):
        code, told = ended(forks, *run_options(*options), cwd=secret_tree, **ENVIRONMENT)
        assert code == 0, told
        check_secrets("what was told", told)
    code, told = ended(forks, "verify", f"./{url('out')}", cwd=secret_tree)
    assert code == 0
    check_secrets("what was told", told)
    output = secret_tree / os.path.normpath(url("out"))
    assert json.loads((output / "run.json").read_bytes())["config"]["input"].startswith("./https://***@host/images?")
    check_files(output)


# Nothing is extracted before somebody says so.
WAITING = """
    def __call__(self, number):
        while not Path({go_on!r}).exists():
            time.sleep(0.01)
        return super().__call__(number)
"""


@pytest.mark.slow
@pytest.mark.spark
def test_sparks_web_page_holds_no_secrets(tree: Path, tmp_path: Path) -> None:
    output, go_on = tmp_path / "out", tmp_path / "go on"
    words = ["run", "--input", str(tree), "--output", str(output), "--weights", "demo", "--components", "3"]
    words += ["--master", "local[1]", "--spark-ui"]
    command = held_up.command(WAITING.format(go_on=str(go_on)), *words, shard_images=8)
    environment = os.environ | ENVIRONMENT | {"PYSPARK_SUBMIT_ARGS": SUBMIT}
    told = b""
    pages: dict[str, bytes] = {}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        for line in process.stdout:
            told += line
            if not pages and (address := re.search(rb"http://\S+", line)):
                try:
                    pages = dict(web_pages(address[0].decode()))
                finally:
                    go_on.touch()
    assert process.returncode == 0, told
    for name, page in pages.items():
        check_secrets(name, page.decode(errors="replace"))
    told_of = b"".join(pages.values())  # Spark 4's page of the environment asks the API for them
    assert all(name.encode() in told_of for name in CONF)
    assert len(pages) >= 4
    check_secrets("what was told", told.decode(errors="replace"))
    check_files(output)


def web_pages(address: str) -> Iterator[tuple[str, bytes]]:
    applications = fetch(f"{address}/api/v1/applications")
    name = json.loads(applications)[0]["id"]
    for page in ("/environment/", "/jobs/", "/executors/", f"/api/v1/applications/{name}/environment"):
        yield page, fetch(address + page)


def fetch(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=300) as answer:
        page: bytes = answer.read()
        return page


def check_secrets(where: str, told: str) -> None:
    found = [canary for canary in CANARIES if canary in told]
    assert not found, f"{found} in {where}: {told}"


def check_files(output: Path) -> None:
    """No canary in any file, as it lies there, and as its readers have it."""
    files = [file for file in output.rglob("*") if file.is_file()]
    assert len(files) > 8
    for file in files:
        check_secrets(str(file), file.read_bytes().decode("latin-1"))
        if file.suffix == ".parquet":
            with pq.ParquetFile(file) as parquet:
                check_secrets(str(file), repr(parquet.metadata.metadata))
                texts = [name for name in parquet.schema_arrow.names if name not in ("features", "pca")]
                check_secrets(str(file), repr(parquet.read(texts).to_pylist()))


@pytest.fixture
def demo_weights_file() -> bytes:
    from mission9.models.weights import load_weights

    return load_weights("demo").data
