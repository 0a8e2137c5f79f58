"""The demo with everything in a bucket: a real S3 server on the loopback, images and results on it.

`python scripts/s3_demo.py [FOLDER] [--keep]`: with `--keep` the server stays until Ctrl-C, to look at what is there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import obstore
from scripts.s3_server import Server, end_as_by_ctrl_c, s3_server

from mission9.datasets.demo import write_sample

BUCKET = "mission9-demo"
IMAGES, RESULTS = f"s3://{BUCKET}/fruits", f"s3://{BUCKET}/results"


def main() -> None:
    end_as_by_ctrl_c()
    arguments = [argument for argument in sys.argv[1:] if argument != "--keep"]
    folder = Path(arguments[0] if arguments else "data/s3-server").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    with s3_server(folder) as server:
        server.make_bucket(BUCKET)
        with tempfile.TemporaryDirectory() as images:
            write_sample(Path(images))
            count = server.upload(Path(images), BUCKET, "fruits")
        print(f"{count} generated photographs in {IMAGES}, on {server.endpoint}", flush=True)
        mission9(server, "run", "--input", IMAGES, "--output", RESULTS, "--weights", "demo")
        mission9(server, "verify", RESULTS)
        show(server)
        if "--keep" in sys.argv:
            print("\nuntil Ctrl-C, for another terminal:\n")
            for name, value in server.environment.items():
                print(f"export {name}={value}", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()


def mission9(server: Server, *arguments: str) -> None:
    """Run a command of mission9 on the server."""
    print(f"\n$ mission9 {' '.join(arguments)}", flush=True)
    command = [sys.executable, "-m", "mission9", *arguments]
    subprocess.run(command, env=os.environ | server.environment, check=True)  # noqa: S603


def show(server: Server) -> None:
    """Print what lies where below the results."""
    print(f"\nbelow {RESULTS}:", flush=True)
    counts: Counter[str] = Counter()
    for page in obstore.list(server.bucket(BUCKET), "results"):
        for found in page:
            parts = found["path"].split("/")[1:]
            counts["/".join(parts[:3]) + ("/..." if len(parts) > 3 else "")] += 1
    for place, count in sorted(counts.items()):
        print(f"  {place}" + (f"   ({count} objects)" if count > 1 else ""))


if __name__ == "__main__":
    main()
