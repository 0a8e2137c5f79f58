"""The Dockerfile and the services: who is asked for what, who may reach what, and what is pinned. `make image-test`
builds them and sees them run."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mission9.cli.make import fetch, subset
from mission9.config import RunConfig
from tests.conftest import REPOSITORY
from tests.scenarios.test_supply_chain import LOCKED, pins

COMPOSE = REPOSITORY / "docker-compose.yml"
EXAMPLE = (REPOSITORY / ".env.example").read_text()
TARGETS = ("cpu", "gpu", "mlflow")
SECRETS = {"JUPYTER_TOKEN": "a-token", "MLFLOW_PASSWORD": "a-long-password"}
ASKED = SECRETS | {"COMPOSE_PROFILES": "cpu"}


def tool(name: str) -> str:
    """A program beside Python or on PATH, else the test is skipped."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^\s*#.*\n", "", (REPOSITORY / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line]


def stages() -> dict[str, list[tuple[str, str]]]:
    """Each stage's instructions, with those of the stages it is made of before them."""
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for instruction, text in instructions():
        if instruction == "FROM":
            parent, _, name = text.partition(" AS ")
            found[name] = list(found.get(parent, []))
        elif name:
            found[name].append((instruction, text))
    return found


def last(target: str, instruction: str) -> str:
    return [text for kind, text in stages()[target] if kind == instruction][-1]


def services() -> dict[str, dict[str, Any]]:
    loaded: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
    return loaded


def test_hadolint_finds_nothing() -> None:
    command = [tool("hadolint"), "--config", ".hadolint.yaml", "Dockerfile"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_services_are_as_the_schema_of_compose_has_them() -> None:
    command = [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def compose(settings: dict[str, str], *arguments: str, file: str = ".env.example") -> subprocess.CompletedProcess[str]:
    """The configuration from `docker compose`, with only these variables and the file."""
    docker = tool("docker")
    if subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        pytest.skip("docker has no compose")
    names = set(re.findall(r"^(\w+)=", EXAMPLE, flags=re.MULTILINE))
    environment = {name: value for name, value in os.environ.items() if name not in names} | settings
    command = [docker, "compose", "--env-file", file, *arguments]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(("profile", "notebook"), [("cpu", "notebook"), ("gpu", "notebook-gpu")])
def test_compose_takes_each_profile(profile: str, notebook: str) -> None:
    done = compose(SECRETS, "--profile", profile, "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["services"]
    assert set(told) == {notebook, "mlflow"}
    published = {port["target"]: (port["host_ip"], port["published"]) for s in told.values() for port in s["ports"]}
    assert published == {8888: ("127.0.0.1", "8889"), 4040: ("127.0.0.1", "4049"), 5000: ("127.0.0.1", "5009")}
    assert told[notebook]["environment"]["MISSION9_SPARK_UI"] == "true"


@pytest.mark.parametrize("missing", SECRETS)
@pytest.mark.parametrize("file", [".env.example", os.devnull], ids=["empty", "unset"])
def test_compose_says_which_secret_is_missing_and_what_to_do(missing: str, file: str) -> None:
    given = {name: value for name, value in ASKED.items() if name != missing}
    done = compose(given, "config", file=file)
    assert done.returncode != 0
    assert f"{missing} is missing a value: is not set. Copy .env.example to .env and give it a value" in done.stderr


def test_compose_says_that_no_notebook_would_start_without_a_profile() -> None:
    done = compose(SECRETS, "config", file=os.devnull)
    assert done.returncode != 0
    assert "COMPOSE_PROFILES is missing a value: is not set, and without it MLflow would start alone" in done.stderr
    assert "COMPOSE_PROFILES=cpu docker compose up" in done.stderr


def test_a_profile_is_asked_for_where_no_profile_can_leave_it_out() -> None:
    """Compose, where it is, runs the test above; that it asks is told by the file alone."""
    always = [settings for settings in services().values() if "profiles" not in settings]
    assert any("${COMPOSE_PROFILES:?is not set, and" in str(settings) for settings in always)
    assert [profile for settings in services().values() for profile in settings.get("profiles", [])] == ["cpu", "gpu"]
    assert re.search(r"^COMPOSE_PROFILES=cpu$", EXAMPLE, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("service", "folders"),
    [
        ("notebook", {"./data": "rw", "./notebooks": "rw", "./dataset": "rw", "./weights": "ro"}),
        ("notebook-gpu", {"./data": "rw", "./notebooks": "rw", "./dataset": "rw", "./weights": "ro"}),
        ("mlflow", {"./mlruns": "rw"}),
    ],
)
def test_results_and_images_are_folders_of_the_host(service: str, folders: dict[str, str]) -> None:
    """Those that the documentation names: nothing of a user's is in a volume but caches."""
    mounts = [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", volume).split(":") for volume in services()[service]["volumes"]]
    shared = {source: (target, *mode) for source, target, *mode in mounts if source.startswith("./")}
    assert {source: (mode or ["rw"])[0] for source, (_, *mode) in shared.items()} == folders
    assert all(target == f"/work/{source.removeprefix('./')}" for source, (target, *_) in shared.items())
    assert [source for source, *_ in mounts if source not in shared] == (["home"] if service != "mlflow" else [])
    made = re.search(r"mkdir ([\w ]+) &&", last("mlflow", "RUN"))
    assert made is not None
    assert {target.removeprefix("/work/") for target, *_ in shared.values()} <= {*made[1].split(), "notebooks"}


def test_what_the_command_line_writes_by_default_is_in_a_folder_of_the_host() -> None:
    written = [RunConfig().output, RunConfig().input, inspect.signature(fetch).parameters["output"].default]
    written += [inspect.signature(subset).parameters["output"].default]
    mounts = [volume for volume in services()["notebook"]["volumes"] if not volume.endswith(":ro")]
    for path in written:
        assert any(f":/work/{str(path).split('/')[0]}" in mount for mount in mounts), path


def test_one_line_makes_ready(tmp_path: Path) -> None:
    for name in ("docker", "notebooks"):
        (tmp_path / name).mkdir()
    (tmp_path / "notebooks" / "mission9.ipynb").touch()
    shutil.copy(REPOSITORY / "docker" / "setup.sh", tmp_path / "docker")
    (tmp_path / ".env.example").write_text(EXAMPLE)

    def setup(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["sh", str(tmp_path / "docker" / "setup.sh"), *arguments]
        environment = {name: value for name, value in os.environ.items() if name != "SUDO_UID"}
        return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True)

    refused = setup("tpu")
    assert (refused.returncode, refused.stderr) == (2, "mission9: give cpu or gpu, not tpu\n")
    done = setup("gpu")
    assert done.returncode == 0, done.stderr
    file = tmp_path / ".env"
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text()
    token, password = (re.findall(rf"^{name}=([0-9a-f]+)$", text, flags=re.MULTILINE)[0] for name in SECRETS)
    assert (len(token), len(password)) == (48, 24)
    assert token not in done.stdout
    uid = os.geteuid() or 1000
    assert "\nCOMPOSE_PROFILES=gpu\n" in text
    assert f"\nCONTAINER_UID={uid}\n" in text
    names = re.findall(r"^(\w+)=", EXAMPLE, flags=re.MULTILINE)
    assert re.findall(r"^(\w+)=", text, flags=re.MULTILINE) == names
    for folder in ("data", "dataset", "mlruns", "notebooks"):
        assert (tmp_path / folder).stat().st_uid == uid
    assert (tmp_path / "weights").is_dir()
    assert "stays as it is" in setup().stdout
    assert file.read_text() == text


def test_a_container_says_which_folder_its_user_cannot_write(tmp_path: Path) -> None:
    for folder, mode in (("data", 0o777), ("notebooks", 0o555)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder).chmod(mode)
    tmp_path.chmod(0o755)
    user = 12345 if os.geteuid() == 0 else None  # root may write everywhere
    with (REPOSITORY / "docker" / "entry.sh").open() as script:
        command = ["sh", "-s", "echo", "began", "a b"]
        environment = {"WRITTEN": "data notebooks mlruns", "PATH": os.environ["PATH"]}
        done = subprocess.run(
            command, stdin=script, cwd=tmp_path, env=environment, user=user, capture_output=True, text=True
        )
    assert (done.returncode, done.stdout) == (0, "began a b\n")
    told = re.findall(r"^mission9: user (\d+) of this container cannot write (\w+)/\. ", done.stderr, re.MULTILINE)
    assert told == [(str(user or os.geteuid()), "notebooks"), (str(user or os.geteuid()), "mlruns")]
    assert "sudo chown -R" in done.stderr


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_begins_by_what_says_so(target: str) -> None:
    assert json.loads(last(target, "ENTRYPOINT")) == ["tini", "--", "sh", "/opt/mission9/entry.sh"]
    assert ("COPY", "docker/entry.sh /opt/mission9/") in instructions()
    written = [text.partition("=")[2].strip('"').split() for kind, text in stages()[target] if "WRITTEN=" in text]
    assert written == [["mlruns"] if target == "mlflow" else ["data", "notebooks"]]


@pytest.mark.parametrize("service", services())
def test_a_service_is_reached_from_this_machine_alone_and_may_do_little(service: str) -> None:
    settings = services()[service]
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in settings["ports"])
    assert settings["read_only"] is True
    assert settings["cap_drop"] == ["ALL"]
    assert settings["security_opt"] == ["no-new-privileges:true"]
    assert settings["pids_limit"] > 0
    assert settings["mem_limit"]
    assert settings["build"]["target"] in TARGETS
    assert not {"privileged", "network_mode", "pid", "user", "cap_add"} & set(settings)


def test_secrets_are_asked_for_and_nowhere_given() -> None:
    text = COMPOSE.read_text()
    for name in SECRETS:
        assert set(re.findall(rf"\$\{{{name}(.)", text)) == {":"}
        assert f"${{{name}:?" in text
        assert re.search(rf"^{name}=$", EXAMPLE, flags=re.MULTILINE)
    jupyter = json.loads((REPOSITORY / "docker" / "jupyter_server_config.json").read_text())
    assert set(jupyter) == {"ServerApp", "LabApp"}
    assert not [name for name in jupyter["ServerApp"] if "token" in name or "password" in name]
    assert jupyter["ServerApp"]["allow_remote_access"] is False
    command = shlex.split(re.sub(r'[\[\],"]', " ", last("cpu", "CMD")))
    assert command == ["jupyter", "lab"]


def test_the_example_tells_every_variable() -> None:
    asked = set(re.findall(r"\$\{(\w+)", COMPOSE.read_text())) | {"COMPOSE_PROFILES"}
    assert set(re.findall(r"^(\w+)=", EXAMPLE, flags=re.MULTILINE)) == asked


def test_a_notebooks_settings_are_mission9s(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in services()["notebook"]["environment"].items():
        monkeypatch.setenv(name, re.sub(r"\$\{\w+(?::[-?](.*))?\}", r"\1", value))
    config = RunConfig()
    assert (config.mlflow, config.weights, config.spark_ui) == ("http://mlflow:5000", "imagenet", False)


@pytest.mark.parametrize("path", [".env", "weights/imagenet.pth", "dataset/a.jpg", "data/a.jpg", "mlruns/a"])
def test_secrets_and_data_are_left_out_of_git(path: str) -> None:
    done = subprocess.run(["git", "check-ignore", "--quiet", path], cwd=REPOSITORY)
    assert done.returncode == 0


def test_an_image_holds_what_is_named_and_nothing_else() -> None:
    lines = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    allowed = {
        str(path.relative_to(REPOSITORY)) for line in lines if line[0] == "!" for path in REPOSITORY.glob(line[1:])
    }
    copied = [text.split() for kind, text in instructions() if kind == "COPY" and "--from" not in text]
    for *sources, _ in copied:
        for source in sources:
            held = [str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob(source)]
            assert held, source
            assert any(name.startswith(source) for name in allowed) or source.startswith("src"), source
    assert not [name for name in allowed if name.startswith((".", "data", "weights", "tests"))]


@pytest.mark.parametrize("target", TARGETS)
def test_nobody_in_an_image_is_root(target: str) -> None:
    assert last(target, "USER") == "${CONTAINER_UID}"
    assert dict(text.partition("=")[::2] for kind, text in stages()[target] if kind == "ARG") == {
        "CONTAINER_UID": "1000"
    }
    after = [kind for kind, _ in stages()[target]]
    assert "RUN" not in after[after.index("USER") :]


@pytest.mark.parametrize(
    ("target", "port", "path"), [("cpu", 8888, "/api"), ("gpu", 8888, "/api"), ("mlflow", 5000, "/health")]
)
def test_health_is_asked_without_a_shell(target: str, port: int, path: str) -> None:
    command = json.loads(last(target, "HEALTHCHECK").partition("CMD ")[2])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "HEALTHCHECK", "exec")
    assert f"C('127.0.0.1', {port}, timeout=4)" in command[2]
    assert f"'{path}'" in command[2]
    for kind in ("CMD", "ENTRYPOINT"):
        assert json.loads(last(target, kind))


def test_pages_are_named_as_this_machine_has_them() -> None:
    jupyter = json.loads((REPOSITORY / "docker" / "jupyter_server_config.json").read_text())["ServerApp"]
    settings = services()["notebook"]
    published = {inner: f"http://localhost:{port}" for _, port, inner in (p.split(":") for p in settings["ports"])}
    assert jupyter["custom_display_url"] == f"{published[str(jupyter['port'])]}/lab"
    assert settings["environment"]["SPARK_UI_PUBLISHED"] == published["4040"]


def test_mlflow_is_asked_under_the_names_it_has() -> None:
    command = json.loads(last("mlflow", "CMD"))
    names = [command[place + 1] for place, word in enumerate(command) if word == "--name"]
    host, port, inner = services()["mlflow"]["ports"][0].split(":")
    asked = services()["notebook"]["environment"]["MLFLOW_TRACKING_URI"]
    assert names == [f"localhost:{port}", f"{host}:{port}", asked.removeprefix("http://")]
    assert command[command.index("--port") + 1] == inner


def test_the_base_is_named_by_its_content_and_no_secret_is_baked_in() -> None:
    parents = [text.partition(" AS ")[0] for kind, text in instructions() if kind == "FROM"]
    assert {parent for parent in parents if parent not in stages()} == {"${BASE_IMAGE}"}
    base = next(text for kind, text in instructions() if kind == "ARG")
    assert re.fullmatch(r"BASE_IMAGE=docker\.io/library/ubuntu:24\.04@sha256:[0-9a-f]{64}", base)
    named = [text for kind, text in instructions() if kind in ("ARG", "ENV", "LABEL")]
    assert not [text for text in named if re.search(r"token|passw|secret|key|index|cert", text, re.IGNORECASE)]


def test_buildah_builds_it_too() -> None:
    text = (REPOSITORY / "Dockerfile").read_text()
    assert "--link" not in "".join(text for kind, text in instructions() if kind == "COPY")
    assert "<<" not in text


def locked(name: str) -> dict[str, str]:
    return {package: version for package, version, _ in LOCKED.findall((REPOSITORY / "docker" / name).read_text())}


def test_what_an_image_installs_has_one_version_and_a_hash() -> None:
    installs = [
        part for kind, text in instructions() if kind == "RUN" for part in re.findall(r"pip install [^&]*", text)
    ]
    assert installs
    for install in installs:
        assert "--no-deps" in install
        assert "--require-hashes" in install or install.split()[-1] == "."
    wanted = pins("requirements.txt") | pins("requirements-notebook.txt")
    torch = wanted.pop("torch")
    wanted["kagglehub"] = pins("requirements-dev.txt")["kagglehub"]  # of `mission9 fetch`
    assert wanted.items() <= locked("requirements.lock").items()
    assert "torch" not in locked("requirements.lock")
    assert locked("torch-cpu.lock") == {"torch": f"{torch}+cpu"}


def test_the_gpus_torch_is_of_cuda_12() -> None:
    gpu = locked("torch-gpu.lock")
    assert gpu["torch"] == "2.10.0"  # the last with CUDA 12, the first without known holes
    libraries = [name for name in gpu if name.startswith("nvidia-")]
    assert libraries
    assert all(name.endswith("-cu12") for name in libraries)
    assert not set(gpu) & set(locked("requirements.lock"))
