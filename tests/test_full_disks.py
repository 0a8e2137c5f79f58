"""Disks that are full: one line that says which, the old result as it was, and a rerun that ends right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mission9 import RunConfig, run
from tests.conftest import InProcessRunner
from tests.hostile import own_mounts

# In a small file system of its own: an old result, then for each size a run that finds so many kB free, the state of
# the old result after that, and the same run with room. Prints a line of JSON for each size.
SWEEP = """
import json, os, shutil, sys
from pathlib import Path
from mission9 import RunConfig, run
from mission9.errors import StorageError
from mission9.runners import InProcessRunner
from mission9.stages.verify_output import verify_output
from tests.hostile import tables

images, place, fresh, *sizes = sys.argv[1:]
place = Path(place)
settings = {"input": images, "weights": "demo"}
old = RunConfig(**settings, output=str(place / "old"), components=2)
run(old, InProcessRunner())
before = tables(place / "old")
wanted = tables(Path(fresh))
for size in sizes:
    config = RunConfig(**settings, output=str(place / "out"), components=3, preprocess="crop")
    shutil.copytree(place / "old", place / "out")
    free = shutil.disk_usage(place).free
    with open(place / "filler", "wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, free - int(size) * 1024)
    try:
        run(config, InProcessRunner())
        told = ""
    except StorageError as error:
        told = str(error)
    after = tables(place / "out") == (before if told else wanted)
    problems = list(verify_output(config.output))
    os.unlink(place / "filler")
    run(config, InProcessRunner())
    again = tables(place / "out") == wanted
    problems += verify_output(config.output)
    print(json.dumps({"size": size, "told": told, "after": after, "again": again, "problems": problems}), flush=True)
    shutil.rmtree(place / "out")
"""


@pytest.mark.slow
def test_at_every_size_the_old_result_stays_and_a_run_with_room_ends_right(tree: Path, tmp_path: Path) -> None:
    fresh = RunConfig(input=str(tree), output=str(tmp_path / "fresh"), weights="demo", components=3, preprocess="crop")
    run(fresh, InProcessRunner())
    needed = sum(file.stat().st_size for file in Path(fresh.output).rglob("*") if file.is_file()) // 1024
    # Kilobytes one by one where little is written, then the large files, and the last ones around what is enough.
    sizes = [0, 4, 8, 12, 20, 40, 60, 80, 100, 130, 160, 200, *range(300, needed, max(1, needed // 12))]
    sizes += [needed + extra for extra in (0, 100, 500, 1000, 1500, 4000)]
    script = f"mount -t tmpfs -o size={4 * needed + 100_000}k none /mnt"
    command = [*own_mounts(), "sh", "-ec", f'{script}\nexec "$@"', "sh", sys.executable, "-c", SWEEP]
    done = subprocess.run(
        [*command, str(tree), "/mnt", fresh.output, *map(str, sizes)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(sizes) >= 20
    for at in found:
        assert at["after"], at
        assert at["again"], at
        assert at["problems"] == [], at
        assert not at["told"] or "there is not enough room" in at["told"], at
    assert found[0]["told"]
    assert not found[-1]["told"]
    assert "Exception ignored" not in done.stderr
