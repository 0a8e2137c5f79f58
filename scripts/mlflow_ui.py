"""MLflow's pages for what was logged to `local`, for whoever has the password: on the loopback, unless told otherwise.

    python scripts/mlflow_ui.py [--port 5009] [--folder DIR] [--host ADDRESS] [--name localhost:5009 ...]

The password is a new one each time, which is printed, or that of MLFLOW_UI_PASSWORD (of 12 letters or more).
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

USER = "mission9"

ENDS = (signal.SIGTERM, signal.SIGHUP)
PATIENCE = 10  # seconds that the server has to end by itself

# Checking the password takes a tenth of a second, which a run cannot spend on each of its 200 requests.
SETTINGS = """[mlflow]
default_permission = NO_PERMISSIONS
database_uri = sqlite:///{folder}/users.db
admin_username = {user}
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 3600
"""


def main() -> int:
    for number in ENDS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, exit_by)
    arguments = _arguments()
    password = os.environ.get("MLFLOW_UI_PASSWORD") or secrets.token_urlsafe(16)
    told = "the password of MLFLOW_UI_PASSWORD" if os.environ.get("MLFLOW_UI_PASSWORD") else f"password {password}"
    with tempfile.TemporaryDirectory(prefix="mission9-mlflow-") as folder:  # nobody else may read it
        settings = Path(folder) / "auth.ini"
        # A percent sign begins something else in such a file.
        settings.write_text(SETTINGS.format(folder=folder, user=USER, password=password.replace("%", "%%")))
        environment = os.environ | {
            "MLFLOW_AUTH_CONFIG_PATH": str(settings),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PYTHONSAFEPATH": "1",  # its workers look for no modules where results lie
        }
        names = arguments.name or [f"localhost:{arguments.port}", f"127.0.0.1:{arguments.port}"]
        print(f"http://{names[0]} (user {USER}, {told}); Ctrl-C ends it", flush=True)
        return serve(command(arguments.host, arguments.port, names), environment, arguments.folder)


def serve(server: list[str], environment: dict[str, str], folder: Path) -> int:
    """Its exit code, when it has ended; whatever ends this program ends the server and its workers first."""
    # In a session of its own, so that its workers can be told from this program, and are ended with it.
    process = subprocess.Popen(server, env=environment, cwd=folder, start_new_session=True)  # noqa: S603
    try:
        return process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGINT, *ENDS):  # the end has begun; a second Ctrl-C would leave half of it
        signal.signal(number, signal.SIG_IGN)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def exit_by(number: int, frame: object) -> NoReturn:  # noqa: ARG001 - as signals call
    """End in order: without this, the server would go on, and the file with the password stay."""
    sys.exit(128 + number)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: the loopback)")
    parser.add_argument("--port", type=int, default=5009, help="(default: 5009)")
    parser.add_argument("--folder", type=Path, default=Path(), help="where mlflow.db and mlruns/ are (default: here)")
    parser.add_argument(
        "--name", action="append", help="a host and port that requests may name, where it is reached by others"
    )
    return parser.parse_args()


def command(host: str, port: int, names: list[str]) -> list[str]:
    """MLflow's server; no page of another's reaches it under a name of its own, nor asks it anything."""
    store = ["--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "mlruns"]
    origins = ",".join(f"http://{name}" for name in names)
    allowed = ["--allowed-hosts", ",".join(names), "--cors-allowed-origins", origins]
    place = ["--host", host, "--port", str(port), *allowed]
    server = [sys.executable, "-P", "-m", "mlflow", "server"]
    return [*server, "--app-name", "basic-auth", "--workers", "1", *store, *place]


if __name__ == "__main__":
    sys.exit(main())
