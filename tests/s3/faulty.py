"""A server between a client and the real one, which fails as servers and networks do, as often as it is told."""

from __future__ import annotations

import http.client
import os
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code>'
    b"<Message>Please reduce your request rate.</Message></Error>"
)
DENIED = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>'
)


def refusal(status: int, code: str) -> tuple[int, bytes]:
    """The answer of a server that refuses a request."""
    return status, f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>No.</Message></Error>'.encode()


@dataclass
class Stop:
    """Requests that are held, of those methods and paths that `is_here` is true of, until they go on or are lost."""

    is_here: Callable[[str, str], bool]
    reached: threading.Event = field(default_factory=threading.Event)
    _over: threading.Event = field(default_factory=threading.Event)
    _are_lost: bool = False

    def go_on(self) -> None:
        """Pass on what is held, and hold nothing more."""
        self._over.set()

    def lose(self) -> None:
        """Have what is held, and what comes here later, never reach the server."""
        self._are_lost = True
        self._over.set()

    def passes(self, method: str, path: str) -> bool:
        """Return True if a request reaches the server, as soon as this is known."""
        if not self.is_here(method, path):
            return True
        self.reached.set()
        self._over.wait()
        return not self._are_lost


@dataclass
class Faults:
    """The shares of requests that fail, by how; of keys that hold a text all that are forbidden or gone."""

    slow_down: float = 0.0
    reset: float = 0.0  # before the server hears of it
    lost: float = 0.0  # the server has done it, and the answer is lost
    cut: float = 0.0  # half of a body comes
    slow: float = 0.0  # a body comes in drops
    forbidden: str = ""
    refusal: tuple[int, bytes] = (403, DENIED)  # what is answered there
    stop: Stop | None = None
    is_blind: bool = False  # to If-None-Match: the request is signed anew without, by the environment's key
    methods: tuple[str, ...] = ("GET", "PUT", "HEAD", "DELETE", "POST")
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    counts: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    open: int = 0  # requests that are not answered yet
    most_open: int = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self.lock:
            self.open += 1
            self.most_open = max(self.most_open, self.open)
        yield
        with self.lock:
            self.open -= 1

    def next(self, method: str, path: str) -> str:
        with self.lock:
            fault = self._next(method, path)
            self.counts[fault] += 1
            self.counts[f"{method} {path.partition('?')[0]}"] += 1
        return fault

    def _next(self, method: str, path: str) -> str:
        if self.forbidden and self.forbidden in path:
            return "forbidden"
        roll = self.chance.random() if method in self.methods else 1.0
        for name in ("slow_down", "reset", "lost", "cut", "slow"):
            roll -= getattr(self, name)
            if roll < 0:
                return name
        return "none"


def _signed(method: str, path: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
    """The headers of a request, with a signature by the key of the environment."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest(method, f"http://{headers['host']}{path}", headers={"host": headers["host"]}, data=body)
    request.context["payload_signing_enabled"] = True
    key = Credentials(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    S3SigV4Auth(key, "s3", os.environ.get("AWS_REGION", "us-east-1")).add_auth(request)
    others = {n: value for n, value in headers.items() if n != "host" and not n.startswith(("x-amz", "authorization"))}
    return others | dict(request.headers)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream: int, faults: Faults) -> None:
        self.upstream, self.faults = upstream, faults
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        with self.server.faults.counted():
            self._pass()

    def _pass(self) -> None:
        fault = self.server.faults.next(self.command, self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if fault == "slow_down":
            return self._answer(503, {}, SLOW_DOWN)
        if fault == "forbidden":
            return self._answer(self.server.faults.refusal[0], {}, self.server.faults.refusal[1])
        stop = self.server.faults.stop
        if fault == "reset" or (stop is not None and not stop.passes(self.command, self.path)):
            return self._reset()
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=60)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            headers = dict(self.headers)
            if self.server.faults.is_blind and headers.pop("if-none-match", None):
                headers = _signed(self.command, self.path, headers, body)
            for name, value in headers.items():
                upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            content, headers = answer.read(), dict(answer.getheaders())
        finally:
            upstream.close()
        if fault == "lost":
            return self._reset()
        return self._answer(answer.status, headers, content, fault)

    def _answer(self, status: int, headers: dict[str, str], content: bytes, fault: str = "none") -> None:
        self.send_response(status)
        kept = {k: v for k, v in headers.items() if k.lower() not in ("transfer-encoding", "connection", "date")}
        if self.command != "HEAD":
            kept = {k: v for k, v in kept.items() if k.lower() != "content-length"}
            kept["Content-Length"] = str(len(content))
        for name, value in kept.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD" or status == 204:
            return
        if fault == "cut" and len(content) > 1:
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.close_connection = True
        elif fault == "slow":
            for start in range(0, len(content), max(1, len(content) // 5)):
                self.wfile.write(content[start : start + max(1, len(content) // 5)])
                self.wfile.flush()
                time.sleep(0.05)
        else:
            self.wfile.write(content)

    def _reset(self) -> None:
        # Closed at once, with what waits thrown away: the other side sees a reset.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        with suppress(OSError):
            self.connection.close()

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _pass_on  # noqa: N815 (names of the base)

    def finish(self) -> None:
        with suppress(OSError, ValueError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@contextmanager
def faulty_server(port: int, faults: Faults) -> Iterator[str]:
    """The address of a server that passes on to another port of the loopback what does not fail."""
    with _Server(port, faults) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
