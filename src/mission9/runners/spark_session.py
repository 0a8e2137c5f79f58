"""The Spark session: the active one if any, else a new one; the only module that depends on the kind of session."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import socket
import stat
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mission9._package import python_path
from mission9.config import RunConfig
from mission9.devices import workers_here
from mission9.errors import SetupError
from mission9.runners.environment import WORKERS, is_databricks, is_submitted
from mission9.runners.java import check_user, find_java, java_options

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

# Plain local[N] fails a job at the first failed task; the second number lets each task fail three times.
_LOCAL_FAILURES = 4
_CONNECT_PORT, _PATIENCE = 15002, 10.0  # Spark's default, and seconds for a server to answer
_UI_PORT = 4040  # the next port if another Spark uses it
_LOCAL = re.compile(r"local(?:\[(\d+|\*)\])?")

# Less compilation, and one thread for garbage collection: startup takes a fifth less time, and scheduling tasks no
# more. The young generation is small, so that garbage does not accumulate over hours of scheduling.
_FAST_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmn64m")

# Keys and values that Spark's web page and logs redact: Spark's own pattern, and secrets in URLs.
_SECRETS = r"(?i)secret|passw(or)?d|token|access[._-]?key|credential|signature|://[^/@ ]+@|://[^@/ ]+:[^@ ]+@"


_GREETING = "Using incubator modules"

_WORKERS = {f"spark.executorEnv.{name}": value for name, value in WORKERS.items()}
_SUBMITTED = {"spark.redaction.regex": _SECRETS} | _WORKERS


def find_or_start_session(config: RunConfig, *, for_runner: bool = False) -> tuple[SparkSession, bool]:
    """The running session, or a new one; and True for a new one, which the caller must stop.

    A new session `for_runner` is tuned to start fast, since it only schedules tasks.

    Raises:
        SetupError: pyspark or Java is missing, or Spark does not start.
    """
    try:
        running = running_session()
    except ImportError as error:
        raise SetupError("pyspark is not installed: pip install 'mission9[spark]'") from error
    is_ours = running is None and not _has_context() and not is_databricks()
    return running or start_session(config, for_runner=for_runner), is_ours


def _has_context() -> bool:
    """Return True if this process has a SparkContext: a new session joins it, and the context's creator stops it."""
    from pyspark import SparkContext

    return SparkContext._active_spark_context is not None


def stop_session(spark: SparkSession) -> None:
    """Stop a session, unless it was stopped already: PySpark would forget the session that has replaced it."""
    if is_connect(spark) or spark.sparkContext._jsc is not None:
        spark.stop()


def start_session(config: RunConfig, *, for_runner: bool = False) -> SparkSession:
    """Start a session with the settings of `config`.

    Under spark-submit, and without a master in `config`, its master, memory and worker settings are used.

    Raises:
        SetupError: Java is missing, or Spark does not start.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    is_theirs = is_submitted() and config.master is None
    master = "the master of spark-submit" if is_theirs else _master(config)
    if master.startswith("sc://"):
        _check_answers(master)
        try:
            remote = SparkSession.builder.remote(master).appName("mission9").getOrCreate()
            logger.info("Spark %s on %s", remote.version, master)
        except (PySparkException, ImportError, OSError) as error:
            raise SetupError(f"no Spark server answers at {master}: {_first_cause(error)}; pass another") from error
        return remote
    settings = _SUBMITTED
    if not is_theirs:
        _prepare_environment(master)
        settings = _settings(config, master, for_runner=for_runner)
        _start_java(settings)
    builder = SparkSession.builder.appName("mission9")
    for key, value in settings.items():
        builder = builder.config(key, value)
    try:
        spark = builder.getOrCreate()
    except (PySparkException, Py4JError, OSError) as error:
        raise SetupError(f"Spark does not start on {master}: {_first_cause(error)}") from error
    logger.info("Spark %s on %s, %s", spark.version, master, ui_address(spark) or "no web page to reach")
    return spark


def _start_java(settings: Mapping[str, str]) -> None:
    """Start Java, unless it is running, with its stderr relayed by this process: above a bar, and without its greeting.

    Raises:
        SetupError: it does not start.
    """
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkException
    from pyspark.java_gateway import launch_gateway

    if is_java_started():
        return
    said, says = os.pipe()
    relay = threading.Thread(target=_pass_on, args=(said,), daemon=True)
    relay.start()
    try:
        conf = SparkConf().setAll(list(settings.items()))
        gateway = launch_gateway(conf, {"stderr": says})  # type: ignore[no-untyped-call]
    except (PySparkException, OSError) as error:
        os.close(says)
        says = -1
        relay.join(_PATIENCE)  # so that the reason is printed first
        raise SetupError(f"Spark does not start on {settings['spark.master']}: {_first_cause(error)}") from error
    finally:
        if says >= 0:
            os.close(says)
    SparkContext._ensure_initialized(gateway=gateway)


def is_java_started() -> bool:
    """Return True if Java runs for this process, with or without a session."""
    from pyspark import SparkContext

    return SparkContext._gateway is not None


def end_java() -> None:
    """End the Java that `start_session` started, and wait for its end; no session may be running."""
    from pyspark import SparkContext

    java = SparkContext._gateway.proc  # type: ignore[union-attr]
    java.stdin.close()  # at which it ends
    java.wait()


def _pass_on(said: int) -> None:
    """Relay Java's stderr, without messages about the modules that it loads for Spark."""
    with open(said, errors="replace") as lines, suppress(OSError, ValueError):
        for line in lines:
            if _GREETING not in line:
                sys.stderr.write(line)


def _check_answers(master: str) -> None:
    """Check that a Connect server answers: its client would retry for many minutes.

    Raises:
        SetupError: nothing answers.
    """
    place = urlsplit(master)
    try:
        socket.create_connection((place.hostname or "", place.port or _CONNECT_PORT), timeout=_PATIENCE).close()
    except (OSError, ValueError) as error:
        raise SetupError(
            f"no Spark server answers at {master}: {error}; start its Connect server, or pass another"
        ) from error


def _first_cause(error: Exception) -> str:
    """The first line of Java's message, without its stack trace."""
    java = getattr(error, "java_exception", None)
    text = str(java.toString() if java is not None else error).strip()
    return text.splitlines()[0] if text else "see its output above, and the memory settings"


def parallelism(spark: SparkSession) -> int:
    """The number of tasks that the session runs at a time."""
    if is_connect(spark):
        return int(spark.conf.get("spark.default.parallelism", None) or os.cpu_count() or 1)
    # spark.default.parallelism may be set to any number; the cores of this machine are known.
    here = re.match(r"local\[(\d+)", spark.sparkContext.master or "")
    return int(here[1]) if here else spark.sparkContext.defaultParallelism


def hadoop_aws() -> str:
    """The Maven coordinate of the package with which Spark reads s3a://, for its Hadoop version; empty without Spark.

    The version is that of the running session, if there is one, else that of the installed archives.
    """
    spec = importlib.util.find_spec("pyspark")
    if spec is None or spec.origin is None:
        return ""
    spark = running_session()
    if spark is not None and not is_connect(spark):
        version = str(spark._jvm.org.apache.hadoop.util.VersionInfo.getVersion())  # type: ignore[union-attr]
    else:
        archives = Path(spec.origin).parent.glob("jars/hadoop-client-api-*.jar")
        version = next((archive.stem.removeprefix("hadoop-client-api-") for archive in archives), "")
    return f"org.apache.hadoop:hadoop-aws:{version}" if version else ""


def ui_address(spark: SparkSession) -> str | None:
    """The address of the session's web page, if it has one that is known here.

    In a container it is that of SPARK_UI_PUBLISHED, which maps Spark's default port; no other port is reachable.
    """
    address = None if is_connect(spark) else spark.sparkContext.uiWebUrl
    published = os.environ.get("SPARK_UI_PUBLISHED")
    if address is None or not published:
        return address
    return published if urlsplit(address).port == _UI_PORT else None


def is_connect(spark: SparkSession) -> bool:
    """Return True if the session uses a remote server, and so has no sparkContext here."""
    return "connect" in type(spark).__module__


def running_session() -> SparkSession | None:
    """The session of this thread, or of this process: the JVM forgets the former when a connection is renewed."""
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    session: SparkSession | None = active or getattr(SparkSession, "_instantiatedSession", None)
    context = getattr(session, "_sc", None)
    return active or (session if getattr(context, "_jsc", None) is not None else None)


def _master(config: RunConfig) -> str:
    master = config.master or "local"
    local = _LOCAL.fullmatch(master)
    if local is None:
        return master
    return f"local[{local[1] or workers_here(config.device)},{_LOCAL_FAILURES}]"


def _prepare_environment(master: str) -> None:
    """Set the environment variables of the JVM; variables set by the user are unchanged."""
    os.environ["JAVA_HOME"] = find_java()
    check_user()
    if _is_here(master):
        # The workers are on this machine: they use this Python, and the web page is bound to the loopback.
        ours = {
            "PYSPARK_PYTHON": sys.executable,
            "PYSPARK_DRIVER_PYTHON": sys.executable,
            "SPARK_LOCAL_IP": "127.0.0.1",
        }
        os.environ.update({name: value for name, value in ours.items() if not os.environ.get(name)})


def _is_here(master: str) -> bool:
    """Return True if all of Spark is on this machine."""
    return master.startswith(("local", "spark://127.", "spark://localhost"))


def silence(spark: SparkSession) -> None:
    """Suppress the messages of a session that is about to end."""
    with suppress(Exception):  # its state is unknown
        # PySpark's accumulator server, which is not used, prints a stack trace for each closed connection.
        spark.sparkContext._accumulatorServer.handle_error = lambda *_: None  # type: ignore[method-assign]
        spark.sparkContext.setLogLevel("OFF")


def _private_folder() -> str:
    """A private folder for Spark's temporary files; its name is fixed, so that none are left behind."""
    folder = Path(tempfile.gettempdir()) / f"mission9-{os.geteuid()}"
    with suppress(FileExistsError):  # also for a file or a link, which any user may have created
        folder.mkdir(mode=0o700)
    facts = folder.lstat()
    is_ours = stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid() and not facts.st_mode & 0o077
    return str(folder) if is_ours else tempfile.mkdtemp(prefix="mission9-")


def _settings(config: RunConfig, master: str, *, for_runner: bool) -> dict[str, str]:
    log4j = files("mission9") / "data" / "log4j2.properties"
    java = [f"-Dlog4j2.configurationFile={Path(str(log4j)).as_uri()}", *java_options()]
    java += _FAST_START if for_runner else ()
    settings = {
        "spark.master": master,
        "spark.driver.memory": config.driver_memory,
        "spark.executor.memory": config.executor_memory,
        "spark.driver.extraJavaOptions": " ".join(java),
        "spark.ui.showConsoleProgress": "false",
        "spark.redaction.regex": _SECRETS,
    }
    if master.startswith("local"):
        settings["spark.local.dir"] = _private_folder()
        # From Spark 4.1 on; with TCP sockets a task waits 40 ms for a packet's acknowledgement.
        settings["spark.python.unix.domain.socket.enabled"] = "true"
    if _is_here(master):
        settings["spark.ui.enabled"] = str(config.spark_ui).lower()
        settings["spark.python.daemon.module"] = "mission9.runners.spark_daemon"
    if not master.startswith("yarn") and not master.startswith("k8s"):
        # In a checkout that is not installed, workers import this package from the driver's path.
        settings["spark.executorEnv.PYTHONPATH"] = python_path()
    return settings | _WORKERS
