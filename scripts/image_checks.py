"""Checks on images for scripts/image_test.py, which runs them without a network or other processes.

python scripts/image_checks.py FOLDER IMAGE_OF_MLFLOW IMAGE_OF_NOTEBOOK
"""

from __future__ import annotations

import base64
import http.client
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.buildah import Buildah, Container

TOKEN, PASSWORD = "a-token-of-this-test", "a-password-of-this-test"
BASIC = {"Authorization": "Basic " + base64.b64encode(f"mission9:{PASSWORD}".encode()).decode()}
OUTSIDE = "192.0.2.1"  # what stands for the address by which other containers and published ports reach one
RUNS = "/api/2.0/mlflow/experiments/search?max_results=5"

# As docker-compose.yml has them.
SETTINGS = {
    "MLFLOW_TRACKING_URI": "http://mlflow:5000",
    "MLFLOW_TRACKING_USERNAME": "mission9",
    "MLFLOW_TRACKING_PASSWORD": PASSWORD,
    "MISSION9_SPARK_UI": "true",
    "MISSION9_WEIGHTS": "imagenet",
    "SPARK_DRIVER_MEMORY": "1g",
    "SPARK_LOCAL_IP": "0.0.0.0",  # noqa: S104
    "SPARK_UI_PUBLISHED": "http://localhost:4049",
}
VOLUMES = (
    "home/mission9",
    "work/data",
    "work/dataset",
    "work/mlruns",
    "tmp",
)  # with /dev, /proc and /sys, all that may be written


@dataclass
class Checks:
    """The findings, line by line."""

    passed: int = 0
    failed: int = 0

    def __call__(self, what: str, seen: object, expected: object = True) -> None:
        if seen == expected:
            self.passed += 1
            print(f"ok      {what}: {seen}", flush=True)
        else:
            self.failed += 1
            print(f"FAILED  {what}: {seen!r}, not {expected!r}", flush=True)


def main() -> int:
    folder, mlflow, notebook = sys.argv[1:]
    buildah, check = Buildah(Path(folder)), Checks()
    server, jupyter = buildah.container(mlflow), buildah.container(notebook)
    for container in (server, jupyter):
        check_image(check, container)
    with server.serving(Path(folder) / "mlflow.log", {"MLFLOW_UI_PASSWORD": PASSWORD}):
        check_mlflow(check, server)
        check_commands(check, jupyter)
    with jupyter.serving(Path(folder) / "jupyter.log", SETTINGS | {"JUPYTER_TOKEN": TOKEN}):
        check_jupyter(check, jupyter)
    logs = "".join(path.read_text() for path in Path(folder).glob("*.log"))
    check("what the logs tell of the token and the password", [s for s in (TOKEN, PASSWORD) if s in logs], [])
    for container in (server, jupyter):
        check_files(check, container)
    print(f"{check.passed} passed, {check.failed} failed")
    return min(check.failed, 1)


def check_image(check: Checks, container: Container) -> None:
    """Return what the image says of itself."""
    config = container.config
    print(f"{container.name}: {' '.join([*config['Entrypoint'], *config['Cmd']])}")
    check("user", container.run("id", "-un").stdout.strip(), "mission9")
    check("the user's number", config["User"], "1000")
    secret = re.compile(r"token|passw|secret|key|cert|index", re.IGNORECASE)
    check("secrets in the environment", [name for name in config["Env"] if secret.search(name)], [])
    check("no capabilities", "CapEff:\t0000000000000000" in container.run("cat", "/proc/self/status").stdout)
    check("packages fit each other", container.run("pip", "check").stdout.strip(), "No broken requirements found.")


def check_mlflow(check: Checks, container: Container) -> None:
    """The server's answers, on an address that is not the loopback's."""
    wait_for(5000, "/health")
    check("MLflow's health check", container.health(), 0)
    published = {"Host": "localhost:5009"}
    check("MLflow /health", answer(5000, "/health", {}), 200)
    check("MLflow without a password", answer(5000, RUNS, published), 401)
    check("MLflow in a browser", answer(5000, RUNS, published | BASIC), 200)
    check("MLflow from the notebook", answer(5000, RUNS, {"Host": "mlflow:5000"} | BASIC), 200)
    for host in ("evil.example", "localhost:5009.evil.example", f"{OUTSIDE}:5000"):
        check(f"MLflow as {host}", answer(5000, RUNS, {"Host": host} | BASIC), 403)
    foreign = published | BASIC | {"Origin": "http://evil.example", "Content-Type": "application/json"}
    made = "/api/2.0/mlflow/experiments/create"
    check("MLflow asked by a foreign page", answer(5000, made, foreign, body='{"name": "foreign"}'), 403)


def check_commands(check: Checks, container: Container) -> None:
    """mission9's commands and the notebook, as they are run in the container."""
    for command in (["python", "-V"], ["java", "-version"]):
        done = container.run(*command)
        check(" ".join(command), done.returncode, 0)
        print("        " + (done.stdout + done.stderr).splitlines()[0])
    torch = container.run("python", "-c", "import torch; print(torch.__version__, torch.version.cuda)")
    print(f"        torch {torch.stdout.strip() or 'is not in this image'}")
    told = check_succeeds(check, container, "mission9", "demo")
    check("on Spark, whose page is named as the host has it", "http://localhost:4049" in told)
    check_succeeds(check, container, "mission9", "verify", "data/demo/Results")
    # The demo has ten seconds for it, of which a busy machine may need more.
    told = check_succeeds(check, container, "mission9", "log", "data/demo/Results")
    check("MLflow has the run", bool(re.search(r"run \w+ of the experiment mission9|logged before, as run \w+", told)))
    check_succeeds(check, container, "python", "-c", "import src.feature_extractor")  # as the original has it
    # Where a new user has them: dataset/, which is written by both.
    check_succeeds(check, container, "sh", "-c", "cd data/demo && tar -cf ../fruits.tar fruits")
    check_succeeds(check, container, "mission9", "fetch", "--archive", "data/fruits.tar")
    check_succeeds(check, container, "python", "scripts/subset_data.py", "--percentage", "2")
    check_succeeds(check, container, "jupyter", "execute", "--output=/tmp/told.ipynb", "notebooks/mission9.ipynb")
    check_succeeds(check, container, "mission9", "verify", "data/Results")


def check_succeeds(check: Checks, container: Container, *command: str) -> str:
    """Return what a command says, which is shown where it fails."""
    done = container.run(*command, environment=SETTINGS)
    check(" ".join(command), done.returncode, 0)
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-4000:])
    return done.stdout + done.stderr


def check_jupyter(check: Checks, container: Container) -> None:
    """The server's answers, on an address that is not the loopback's."""
    check("Jupyter's health check before it is there", container.health() != 0)
    local = {"Host": "localhost:8889"}
    wait_for(8888, "/api", local)
    check("Jupyter's health check", container.health(), 0)
    check("Jupyter /api", answer(8888, "/api", local), 200)
    token = {"Authorization": f"token {TOKEN}"}
    check("Jupyter /api/contents without the token", answer(8888, "/api/contents", local), 403)
    check(
        "Jupyter /api/contents with another", answer(8888, "/api/contents", local | {"Authorization": "token x"}), 403
    )
    check("Jupyter /api/contents with it", answer(8888, "/api/contents", local | token), 200)
    check("Jupyter under a foreign name", answer(8888, "/api/contents", {"Host": "evil.example"} | token), 403)


def check_files(check: Checks, container: Container) -> None:
    """Return what the container's root holds after all that."""
    root = Path(container.buildah("mount", container.name))
    left = [str(path) for place in ("etc/pip.conf", "run/secrets", "root/.cache") for path in root.glob(place)]
    check("left of the build", left, [])
    changes = root.parent / "diff"  # of the overlay
    written = [str(path.relative_to(changes)) for path in changes.rglob("*") if not path.is_dir()]
    check("files written outside the volumes", [name for name in written if not name.startswith(VOLUMES)], [])


def wait_for(port: int, path: str, headers: Mapping[str, str] | None = None) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and answer(port, path, headers or {}) != 200:
        time.sleep(1)


def answer(port: int, path: str, headers: Mapping[str, str], body: str | None = None) -> int:
    """The status of what it answers; 0 for nothing."""
    connection = http.client.HTTPConnection(OUTSIDE, port, timeout=60)
    try:
        connection.request("POST" if body else "GET", path, body=body, headers=dict(headers))
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
