"""MLflow's pages for what was logged to `local`, on the loopback, for whoever has the password that is printed.

    python scripts/mlflow_ui.py [--port 5009] [--folder DIR]

The password is a new one each time, or that of MLFLOW_UI_PASSWORD (of 12 letters or more).
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

USER = "mission9"

SETTINGS = """[mlflow]
default_permission = NO_PERMISSIONS
database_uri = sqlite:///{folder}/users.db
admin_username = {user}
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=5009, help="on the loopback (default: 5009)")
    parser.add_argument("--folder", type=Path, default=Path(), help="where mlflow.db and mlruns/ are (default: here)")
    arguments = parser.parse_args()
    password = os.environ.get("MLFLOW_UI_PASSWORD") or secrets.token_urlsafe(16)
    with tempfile.TemporaryDirectory(prefix="mission9-mlflow-") as folder:  # nobody else may read it
        settings = Path(folder) / "auth.ini"
        # A percent sign begins something else in such a file.
        settings.write_text(SETTINGS.format(folder=folder, user=USER, password=password.replace("%", "%%")))
        environment = os.environ | {
            "MLFLOW_AUTH_CONFIG_PATH": str(settings),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(),
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        print(f"http://localhost:{arguments.port} (user {USER}, password {password}); Ctrl-C ends it", flush=True)
        server = command(arguments.port)
        try:
            return subprocess.run(server, env=environment, cwd=arguments.folder, check=False).returncode  # noqa: S603
        except KeyboardInterrupt:
            return 0


def command(port: int) -> list[str]:
    store = ["--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "mlruns"]
    hosts = f"localhost:{port},127.0.0.1:{port}"  # no page of another's reaches it under a name of its own
    place = ["--host", "127.0.0.1", "--port", str(port), "--allowed-hosts", hosts]
    return [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--workers", "1", *store, *place]


if __name__ == "__main__":
    sys.exit(main())
