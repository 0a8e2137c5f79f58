"""Check this machine for problems that would stop a run: one finding a line, each with a remedy."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import pooch
import psutil
from packaging.version import Version
from platformdirs import user_cache_path

from mission9 import devices
from mission9.config import RunConfig
from mission9.doctor.finding import Finding, Status
from mission9.errors import Mission9Error
from mission9.estimate.fast import FAST_HINT, is_jpeg
from mission9.models.engines import check_cpu, choose_engine
from mission9.models.weights import IMAGENET_URL, check_weights, load_weights
from mission9.output.local import Output
from mission9.output.open_local import check_may_begin
from mission9.redact import redact
from mission9.runners.factory import works_elsewhere
from mission9.sources import find_root
from mission9.sources.list_images import check_links, list_images
from mission9.sources.listing import FITTING, Listing, ListingCounts, fitting_split
from mission9.storage.location import local_path
from mission9.system import (
    SHARED_MEMORY,
    SHARED_REMEDY,
    existing,
    installed,
    is_free,
    memory_bytes,
    nvidia_gpus,
    size_text,
    unreachable,
)

# Older versions have known vulnerabilities, or lack features in use.
_FLOORS = {
    "pyspark": "3.5.7",
    "torch": "2.10",
    "pillow": "12.3",
    "mlflow": "3.17.2",
    "pyarrow": "16",
    "openvino": "2025.0",
    "plotly": "6",
}

_PORTS = {4040: "Spark's web page", 4049: "Spark's, outside a container", 5009: "MLflow", 8889: "Jupyter"}
_LITTLE_ROOM = 2 * 2**30
_LARGE_JPEG = 1_000_000  # bytes: as of five megapixels and more


def examine(config: RunConfig) -> Iterator[Finding]:
    """Run every check for a run with `config`."""
    for look in _LOOKS:
        try:
            yield from look(config)
        except Mission9Error as error:
            yield Finding(look.__name__.strip("_"), "problem", str(error))


def _python(config: RunConfig) -> Iterator[Finding]:  # noqa: ARG001
    yield Finding("python", "ok", f"{platform.python_version()} in {sys.executable}")


def _packages(config: RunConfig) -> Iterator[Finding]:
    wanted = ["pillow", "pyarrow"]
    wanted += ["mlflow"] if config.mlflow else []
    wanted += ["pyspark"] if config.runner == "spark" or config.master else []
    for name in dict.fromkeys([*wanted, *_FLOORS]):
        version = installed(name)
        if version is None and name in wanted:
            yield Finding("packages", "problem", f"{name} is not installed", f"pip install '{name}>={_FLOORS[name]}'")
        elif version is not None and Version(version) < Version(_FLOORS[name]):
            remedy = f"pip install '{name}>={_FLOORS[name]}'"
            yield Finding("packages", "problem", f"{name} {version} is older than {_FLOORS[name]}", remedy)
    yield from _pairings()
    if not (config.no_report or installed("plotly")):
        text, remedy = "plotly is not installed: runs end without report.html", "pip install 'mission9[report]'"
        yield Finding("packages", "warning", text, f"{remedy}, or --no-report")
    found = ", ".join(f"{name} {installed(name)}" for name in _FLOORS if installed(name))
    yield Finding("packages", "ok", found)


def _pairings() -> Iterator[Finding]:
    """Check for versions that do not work together."""
    pyspark, python = installed("pyspark"), Version(platform.python_version())
    if pyspark is None or Version(pyspark) >= Version("4"):
        return
    if python >= Version("3.12") and installed("setuptools") is None:
        text = f"pyspark {pyspark} imports distutils, which Python {python} no longer has"
        yield Finding("packages", "problem", text, "pip install setuptools, or pyspark 4")
    if Version(installed("pandas") or "2") >= Version("3"):
        yield Finding("packages", "problem", f"pyspark {pyspark} does not work with pandas 3", "pip install 'pandas<3'")


def _java(config: RunConfig) -> Iterator[Finding]:
    from mission9.runners.java import check_user, find_java

    if not _wants_spark(config):
        yield Finding("java", "ok", "not needed by --runner local")
        return
    try:
        home = find_java()
        check_user()
        yield Finding("java", "ok", f"in {home}")
    except Mission9Error as error:
        text, _, remedy = str(error).partition(": ")
        if config.runner == "spark" or config.master:
            yield Finding("java", "problem", text, remedy)
        else:
            yield Finding("java", "warning", f"{text}; runs continue without Spark", remedy)


def _engine(config: RunConfig) -> Iterator[Finding]:
    engine = choose_engine(
        engine=config.engine,
        device=config.device,
        precision=config.precision,
        batch_size=config.batch_size,
        elsewhere=works_elsewhere(config),
    )
    check_cpu(engine)
    yield Finding("engine", "ok", f"{engine.engine} on {engine.device}, {engine.precision}")


def _gpu(config: RunConfig) -> Iterator[Finding]:
    why_not = devices.why_no_cuda()
    if not why_not:
        yield Finding("gpu", "ok", nvidia_gpus() or f"{devices.gpus_here()} to use")
    elif works_elsewhere(config) and config.device == "cuda":
        yield Finding("gpu", "ok", "not checked here: workers have their own")
    elif config.device == "cuda" or nvidia_gpus():
        remedy = "check that nvidia-smi lists it, and that torch is built for a CUDA version that the driver supports"
        yield Finding("gpu", "problem", why_not, remedy)
    else:
        yield Finding("gpu", "ok", f"none ({why_not}): features are computed on the CPU")


def _memory(config: RunConfig) -> Iterator[Finding]:
    there, available = psutil.virtual_memory().total, psutil.virtual_memory().available
    text = f"{size_text(there)}, {size_text(available)} of it free"
    if _wants_spark(config) and memory_bytes(config.driver_memory) > there:
        remedy = "SPARK_DRIVER_MEMORY=2g is enough: pixels never pass through Spark"
        yield Finding("memory", "warning", f"{text}; Spark's driver may take {config.driver_memory}", remedy)
    elif available < _LITTLE_ROOM:
        yield Finding("memory", "warning", f"{text}, which is little", "end what else is running, or use --workers 1")
    else:
        yield Finding("memory", "ok", text)


def _disk(config: RunConfig) -> Iterator[Finding]:
    # A result in a bucket is built in the user's cache first.
    folder = existing(local_path(config.output) or user_cache_path("mission9"))
    free = shutil.disk_usage(folder).free
    status: Status = "ok" if free >= _LITTLE_ROOM else "warning"
    text = f"{size_text(free)} free for {config.output}; an image's features take 5 KB"
    yield Finding("disk", status, text, "" if status == "ok" else "pass an --output with more space")


def _temporary(config: RunConfig) -> Iterator[Finding]:  # noqa: ARG001
    for what, folder in (("temporary files", tempfile.gettempdir()), ("shared memory", SHARED_MEMORY)):
        try:
            free = shutil.disk_usage(folder).free
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"mission9")
        except OSError as error:
            remedy = SHARED_REMEDY if folder == SHARED_MEMORY else "set TMPDIR to a writable folder"
            yield Finding(what, "problem", f"{folder}: {error.strerror}", remedy)
            continue
        status: Status = "ok" if free > 64 * 2**20 else "warning"
        remedy = "" if status == "ok" else "free some space there; in a container, pass --shm-size 1g"
        yield Finding(what, status, f"{size_text(free)} free in {folder}", remedy)


def _input(config: RunConfig) -> Iterator[Finding]:
    root, found = find_root(config.input), ListingCounts()
    sizes: list[int] = []
    for batch in list_images(root, found, Listing.of(config, exclude=config.output)):
        sizes += [row["bytes"] for row in batch.select(["path", "bytes"]).to_pylist() if is_jpeg(row["path"])]
        # Test/ sorts before Training/, and may exceed the first batch.
        if config.pca_model or any(found.listed[split] for split in FITTING):
            break
    check_links(config.input, found)
    if not found.listed:
        remedy = "pass the folder of Training/ and Test/, or of the label folders, with --input"
        yield Finding("input", "problem", f"there are no images in {config.input}{found.in_brackets()}", remedy)
        return
    if config.pca_model is None:
        fitting_split(found.listed)
    splits = ", ".join(f"{count:,} of {split}" for split, count in found.listed.items())
    yield Finding("input", "ok", f"images: {splits}, among the first ones found; {found.understood}")
    if config.decode == "exact" and sizes and median(sizes) >= _LARGE_JPEG:
        yield Finding("input", "ok", f"JPEGs of {size_text(int(median(sizes)))} each; {FAST_HINT}")
    if skipped := found.in_brackets(folders_only=True):
        yield Finding("input", "warning", f"skipped among them:{skipped}", "pass --all-files if they are images")


def _output(config: RunConfig) -> Iterator[Finding]:
    path = local_path(config.output)
    if path is None:
        return  # covered by the checks of buckets
    output = Output(path.absolute())
    check_may_begin(output, overwrite=config.overwrite)
    folder, remedy = existing(output.root), "pass another --output, or change its permissions"
    if not folder.is_dir():
        yield Finding(
            "output", "problem", f"{folder} is a file, so no folder can be created in it", "pass another --output"
        )
    elif not os.access(folder, os.W_OK | os.X_OK):
        yield Finding("output", "problem", f"{folder} cannot be written", remedy)
    else:
        yield Finding("output", "ok", f"{config.output} can be {'written' if folder == output.root else 'created'}")


def _s3(config: RunConfig) -> Iterator[Finding]:
    from mission9.doctor.buckets import examine_s3  # not always needed

    yield from examine_s3(config)


def _weights(config: RunConfig) -> Iterator[Finding]:
    check_weights(config.weights)
    cached = Path(pooch.os_cache("mission9")) / os.path.basename(IMAGENET_URL)
    if config.weights == "imagenet" and not cached.exists():
        failure = unreachable(IMAGENET_URL)
        host = urlsplit(IMAGENET_URL).hostname
        if failure:
            remedy = f"download {IMAGENET_URL} on another machine and pass --weights FILE"
            text = f"imagenet is not downloaded yet, and {host} is unreachable ({failure})"
            yield Finding("weights", "problem", text, remedy)
        else:
            yield Finding("weights", "ok", f"imagenet will be downloaded once from {host}")
        return
    weights = load_weights(config.weights)
    yield Finding("weights", "ok", f"{weights.name}, SHA-256 {weights.sha256[:12]}…")


def _mlflow(config: RunConfig) -> Iterator[Finding]:
    from mission9.tracking import LOCAL, why_files_are_refused  # not always needed

    if not config.mlflow:
        yield Finding("mlflow", "ok", "not used (--mlflow)")
    elif config.mlflow == LOCAL or config.mlflow.startswith("sqlite:"):
        writable = os.access(Path(), os.W_OK)
        text = "stored in files, in the current folder" if writable else "the current folder is not writable"
        yield Finding("mlflow", "ok" if writable else "problem", text, "" if writable else "change to another")
    elif not config.mlflow.startswith("http"):
        # Even a query would make MLflow create its tables in a database.
        remedy = "none needed: if MLflow refuses a result, the run succeeds, and mission9 log OUTPUT sends it later"
        yield Finding("mlflow", "warning", f"{redact(config.mlflow)} is neither a server nor local: not tested", remedy)
    elif failure := unreachable(config.mlflow.rstrip("/") + "/health"):
        remedy = "start it, or drop --mlflow and send results later: mission9 log OUTPUT"
        yield Finding("mlflow", "problem", f"the server does not answer ({failure})", remedy)
    elif failure := why_files_are_refused(config.mlflow):
        remedy = "fix its --artifacts-destination, which must be a store that this machine can reach"
        text = f"the server answers, but refuses files ({failure})"
        yield Finding("mlflow", "warning", text, remedy)
    else:
        yield Finding("mlflow", "ok", "the server answers, and stores files")


def _ports(config: RunConfig) -> Iterator[Finding]:  # noqa: ARG001
    taken = [port for port in _PORTS if not is_free(port)]
    for port in taken:
        remedy = "Spark uses the next one by itself" if port == 4040 else "end the process on it, or pass another port"
        yield Finding("ports", "warning", f"{port} ({_PORTS[port]}) is in use", remedy)
    if not taken:
        yield Finding("ports", "ok", f"{', '.join(map(str, _PORTS))} are free")


_LOOKS: tuple[Callable[[RunConfig], Iterator[Finding]], ...] = (
    _python,
    _packages,
    _java,
    _engine,
    _gpu,
    _memory,
    _disk,
    _temporary,
    _s3,
    _input,
    _output,
    _weights,
    _mlflow,
    _ports,
)


def _wants_spark(config: RunConfig) -> bool:
    return config.runner != "local"
