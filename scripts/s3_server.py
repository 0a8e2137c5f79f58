"""A real S3 server on the loopback for tests and for trying things out: OpenStack Swift, which speaks S3.

Four processes, whose files lie in one folder. `python scripts/s3_server.py FOLDER` serves until Ctrl-C, and prints the
settings to reach it. Needs `swift` (requirements-s3-server.txt) in .venv-s3-server, or on the PATH.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.store import S3Store

REPOSITORY = Path(__file__).resolve().parent.parent
KEY_ID, SECRET, REGION = "test:tester", "testing", "eu-west-1"

_OPTIONS: Any = {"allow_http": True}
_PATIENCE = 300.0  # seconds until all four serve

_STORES = ("object", "container", "account")

_SWIFT_CONF = """\
[swift-hash]
swift_hash_path_suffix = mission9
swift_hash_path_prefix = mission9

[storage-policy:0]
name = one
default = yes
"""

# What all four have in common; `workers = 0` keeps each in one process, so that ending it ends all of it.
_COMMON = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
swift_dir = {folder}
devices = {folder}
mount_check = false
workers = 0
user = {user}
disable_fallocate = true
log_level = WARNING
"""

# What `swift-ring-builder` does in three processes for each of the stores.
_RINGS = """\
import sys
from swift.common.ring import RingBuilder

for store in sys.argv[1:]:
    kind, port = store.split("=")
    builder = RingBuilder(4, 1, 1)
    builder.add_dev({"region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "device": "d1", "weight": 100})
    builder.rebalance()
    builder.get_ring().save(f"{kind}.ring.gz")
"""

# In the place of memcached: what the one process of the proxy knows of accounts and buckets. Without it each request
# asks the other servers for both, which takes as long again.
_CACHE = """\
import json
from time import monotonic

class Cache:
    def __init__(self, app):
        self.app, self.kept = app, {}

    def __call__(self, environment, start_response):
        environment["swift.cache"] = self
        return self.app(environment, start_response)

    def get(self, key, **_):
        value, end = self.kept.get(key, ("null", 0))
        return json.loads(value) if monotonic() < end else None

    def set(self, key, value, time=60, **_):
        self.kept[key] = json.dumps(value), monotonic() + time

    def delete(self, key, **_):
        self.kept.pop(key, None)

def filter_factory(*_, **__):
    return Cache
"""

_STORE = """\
[pipeline:main]
pipeline = {kind}-server

[app:{kind}-server]
use = egg:swift#{kind}
"""

_FILTERS = (
    *("catch_errors", "gatekeeper", "healthcheck", "cache", "listing_formats", "bulk", "s3api", "tempauth"),
    *("copy", "slo", "dlo", "versioned_writes", "symlink"),
)

_SETTINGS = {
    "cache": "paste.filter_factory = proxy_cache:filter_factory",
    "s3api": f"use = egg:swift#s3api\nlocation = {REGION}\ns3_acl = false\nmin_segment_size = 1",
    "tempauth": "use = egg:swift#tempauth\nuser_test_tester = testing .admin",
    "versioned_writes": "use = egg:swift#versioned_writes\nallow_object_versioning = true",
}


@dataclass(frozen=True)
class Server:
    """A server that runs; `environment` is what a client needs of it."""

    port: int

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            # Swift knows neither encryption nor policies of buckets, so that it could not be met.
            "MISSION9_POLICY": "none",
        }

    def make_bucket(self, name: str) -> None:
        """Make a bucket."""
        # As if the server's name held the bucket's: what is signed is the bucket itself.
        store = S3Store("none", config=self._config(virtual_hosted_style_request=True), client_options=_OPTIONS)
        url = obstore.sign(store, "PUT", name, timedelta(minutes=1))
        with urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=60):  # noqa: S310
            pass

    def bucket(self, name: str) -> S3Store:
        """A client of a bucket."""
        return S3Store(name, config=self._config(), client_options=_OPTIONS)

    def upload(self, folder: Path, bucket: str, prefix: str) -> int:
        """Put every file below a folder into a bucket, and tell how many."""
        store = self.bucket(bucket)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]

        def put(path: Path) -> None:
            obstore.put(store, f"{prefix}/{path.relative_to(folder)}", path)

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(put, files))
        return len(files)

    def _config(self, **settings: Any) -> Any:
        return {
            "endpoint": self.endpoint,
            "region": REGION,
            "access_key_id": KEY_ID,
            "secret_access_key": SECRET,
            **settings,
        }


def find_swift() -> Path | None:
    """The folder of Swift's programs; None where it is not installed."""
    beside = REPOSITORY / ".venv-s3-server" / "bin"
    found = shutil.which("swift-proxy-server", path=os.pathsep.join([str(beside), os.environ.get("PATH", "")]))
    return Path(found).parent if found else None


@contextmanager
def s3_server(folder: Path, *, page_keys: int = 1000) -> Iterator[Server]:
    """A server whose files lie in `folder`, until the end of the context; its listings have pages of so many keys.

    Raises:
        RuntimeError: Swift is not installed, or does not start.
    """
    programs = find_swift()
    if programs is None:
        raise RuntimeError("swift is not installed: make .venv-s3-server/.ready")
    ports = dict(zip((*_STORES, "proxy"), _free_ports(), strict=True))
    _configure(folder, ports, programs, page_keys)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes.extend(_start(programs, folder, kind) for kind in ports)
        _wait(ports, processes, folder)
        yield Server(ports["proxy"])
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()


def _configure(folder: Path, ports: dict[str, int], programs: Path, page_keys: int) -> None:
    (folder / "d1").mkdir(parents=True)
    (folder / "swift.conf").write_text(_SWIFT_CONF)
    for kind, port in ports.items():
        common = _COMMON.format(port=port, folder=folder, user=getpass.getuser())
        (folder / f"{kind}.conf").write_text(
            common + (_proxy(page_keys) if kind == "proxy" else _STORE.format(kind=kind))
        )
    (folder / "proxy_cache.py").write_text(_CACHE)
    rings = [f"{kind}={port}" for kind, port in ports.items() if kind in _STORES]
    subprocess.run([str(programs / "python3"), "-c", _RINGS, *rings], cwd=folder, check=True)  # noqa: S603


def _proxy(page_keys: int) -> str:
    settings = {**_SETTINGS, "s3api": f"{_SETTINGS['s3api']}\nmax_bucket_listing = {page_keys}"}
    sections = [f"[filter:{name}]\n{settings.get(name, f'use = egg:swift#{name}')}\n" for name in _FILTERS]
    app = "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n"
    return "\n".join([f"[pipeline:main]\npipeline = {' '.join(_FILTERS)} proxy-server\n", *sections, app])


def _start(programs: Path, folder: Path, kind: str) -> subprocess.Popen[bytes]:
    command = [str(programs / f"swift-{kind}-server"), str(folder / f"{kind}.conf")]
    with (folder / f"{kind}.log").open("wb") as log:
        # Not of the caller's group: Ctrl-C is for the caller, which ends them in its own time.
        facts = {"SWIFT_CONF_FILE": str(folder / "swift.conf"), "PYTHONPATH": str(folder)}
        return subprocess.Popen(  # noqa: S603
            command, cwd=folder, stdout=log, stderr=log, env=os.environ | facts, start_new_session=True
        )


def _wait(ports: dict[str, int], processes: list[subprocess.Popen[bytes]], folder: Path) -> None:
    """Wait until each of the four takes connections: the proxy answers before those behind it do."""
    deadline, missing = time.monotonic() + _PATIENCE, list(ports.values())
    while time.monotonic() < deadline and all(process.poll() is None for process in processes):
        try:
            with socket.create_connection(("127.0.0.1", missing[0]), timeout=1):
                missing.pop(0)
        except OSError:
            time.sleep(0.05)
        if not missing:
            return
    words = "\n".join(log.read_text(errors="replace")[-2000:] for log in sorted(folder.glob("*.log")))
    raise RuntimeError(f"the S3 server does not start:\n{words}")


def _free_ports() -> list[int]:
    """Ports of the loopback that nobody listens on."""
    sockets = [socket.socket() for _ in range(len(_STORES) + 1)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def end_as_by_ctrl_c() -> None:
    """Have a request to terminate end the servers, too."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def main() -> None:
    end_as_by_ctrl_c()
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "data/s3-server").absolute()
    with s3_server(folder) as server:
        for name, value in server.environment.items():
            print(f"export {name}={value}")
        print("# until Ctrl-C", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
