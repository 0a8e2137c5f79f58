"""The program in forks of one process that has its imports behind it, where a new interpreter is not the point.

A fork is a process of its own: with its own arguments, environment, folder, mounts and limits, and an exit code. A new
interpreter takes seconds to get as far as a fork begins. At its end Python's duties are done, and libraries' are not:
OpenVINO's would wait for threads that are the first process's.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PROGRAM = "from mission9.cli import program; program()"

# What most commands load, or make, when they are at it.
USUAL = ("mission9.cli.entry", "mission9.pipeline.run", "mission9.pipeline.setup", "mission9.results.verify", "pandas")

_NEW_MOUNTS = 0x00020000  # CLONE_NEWNS of <sched.h>
_UNCONFINED: dict[str, Any] = {"cwd": None, "umask": None, "limits": {}, "script": ""}


class Ended(subprocess.CompletedProcess[str]):
    """A fork that has ended, and the most memory that it, or a process that it waited for, had: in kilobytes."""

    def __init__(self, args: Sequence[str], returncode: int, stdout: str, stderr: str, memory: int) -> None:
        super().__init__(args, returncode, stdout, stderr)
        self.memory = memory


class Forks:
    """A process that forks for each command; `before` are the words of a command that starts it, such as `unshare`.

    It is started with the environment as it is then, and has loaded `modules`; with `engine`, the network of the demo's
    weights is compiled.
    """

    def __init__(
        self,
        *,
        before: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        modules: Sequence[str] = USUAL,
        engine: bool = True,
    ) -> None:
        self._process = subprocess.Popen(
            [*before, sys.executable, __file__, str(int(engine)), *modules],
            env=os.environ | dict(environment or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def run(
        self,
        *words: str,
        code: str = PROGRAM,
        environment: Mapping[str, str] | None = None,
        timeout: float = 300,
        **confined: Any,
    ) -> Ended:
        """A command carried out in a fork: `mission9` with these words, or other code that finds them in `sys.argv`.

        `confined` may have `cwd`, `umask`, `limits` by their names in `resource`, and a `script` of the shell that is
        carried out first, among mounts that are the fork's own.

        Raises:
            subprocess.TimeoutExpired: it did not end; all forks are killed.
        """
        facts = {"words": words, "code": code, "environment": os.environ | dict(environment or {})}
        told = self._ask({**facts, **_UNCONFINED, **confined}, timeout)
        return Ended(words, told["code"], told["out"], told["err"], told["memory"])

    def shell(self, script: str) -> None:
        """Carry out a script where the forks are started: what it mounts is there for all that follow.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        told = self._ask({"shell": script}, 60)
        if told["code"]:
            raise subprocess.CalledProcessError(told["code"], script, stderr=told["err"])

    def place(self, path: str | Path) -> Path:
        """A path among the mounts of the forks, as this process reaches it."""
        return Path(f"/proc/{self._process.pid}/root{path}")

    def _ask(self, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], timeout)[0]:
            self._kill()
            raise subprocess.TimeoutExpired(str(request.get("words")), timeout)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process:  # which closes its pipes: it ends when nothing is left to read
            pass


def main() -> None:
    """Called with whether to make the engine, and names of modules; answers requests until there are no more."""
    sys.path[0] = str(Path(__file__).parents[2])
    for name in sys.argv[2:]:
        importlib.import_module(name)
    if int(sys.argv[1]):
        from mission9.models.engines import choose_engine, make_engine
        from mission9.models.weights import load_weights

        make_engine(choose_engine(), load_weights("demo"), threads=1)
    if request := _next_fork():
        os._exit(_exit_code(request))


def _exit_code(request: Mapping[str, Any]) -> int:
    """Carry out in this fork what it is asked for, to the end."""
    code: object = 0
    try:
        _become(request)
        sys.argv = ["mission9", *request["words"]]
        exec(compile(request["code"], "<fork>", "exec"), {"__name__": "__main__"})
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else 0


def _next_fork() -> dict[str, Any] | None:
    """In a fork, what it is asked for; in this process nothing, after the last."""
    requests, answers = os.dup(0), os.dup(1)  # bare numbers, of which nothing is left to be ended in a fork
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    while line := _line_of(requests):
        request: dict[str, Any] = json.loads(line)
        if "shell" in request:
            done = subprocess.run(["sh", "-ec", request["shell"]], capture_output=True, text=True, check=False)
            answer = {"code": done.returncode, "err": done.stderr}
        else:
            (out, its_out), (err, its_err) = os.pipe(), os.pipe()
            child = os.fork()
            if not child:
                os.dup2(its_out, 1)
                os.dup2(its_err, 2)
                for number in (requests, answers, out, its_out, err, its_err):
                    os.close(number)
                return request
            os.close(its_out)
            os.close(its_err)
            told = _all_of(out, err)
            _, status, spent = os.wait4(child, 0)
            code = os.waitstatus_to_exitcode(status)
            answer = {"code": code, "out": told[out], "err": told[err], "memory": spent.ru_maxrss}
        os.write(answers, json.dumps(answer).encode() + b"\n")
    return None


def _line_of(requests: int) -> bytes:
    line = b""
    while not line.endswith(b"\n") and (part := os.read(requests, 1 << 16)):
        line += part
    return line


def _become(request: Mapping[str, Any]) -> None:
    """Make this fork what is asked for."""
    os.environ.clear()
    os.environ.update(request["environment"])
    if request["script"]:
        if ctypes.CDLL(None, use_errno=True).unshare(_NEW_MOUNTS):
            raise OSError(ctypes.get_errno(), "no mounts of its own")
        subprocess.run(["sh", "-ec", request["script"]], check=True)
    if request["cwd"] is not None:
        os.chdir(request["cwd"])
    if request["umask"] is not None:
        os.umask(request["umask"])
    for name, most in request["limits"].items():
        resource.setrlimit(getattr(resource, name), (most, most))


def _all_of(*streams: int) -> dict[int, str]:
    """The content of pipes, read until all writers have closed them."""
    told, left = dict.fromkeys(streams, b""), list(streams)
    while left:
        for stream in select.select(left, [], [])[0]:
            part = os.read(stream, 1 << 16)
            told[stream] += part
            if not part:
                left.remove(stream)
                os.close(stream)
    return {stream: text.decode(errors="replace") for stream, text in told.items()}


if __name__ == "__main__":
    main()
