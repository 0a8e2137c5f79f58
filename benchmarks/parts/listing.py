"""Listing and planning of a million files in folders of 5,000 and in one, and of as many keys of a bucket.

Each is done in a fresh process. The bucket is a server on the loopback that lists keys and holds no objects.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict

from benchmarks.measure.listing import listed, listed_in_bucket
from benchmarks.measure.sitting import Sitting
from benchmarks.measure.trees import make_flat
from benchmarks.parts import Figures, Part

FILES = 1_000_000
FOLDER_FILES = 5000


def run(sitting: Sitting) -> Figures:
    count, layouts = sitting.options.count or FILES, {}
    for called, size in ((f"folders of {FOLDER_FILES:,}", FOLDER_FILES), ("one folder", count)):
        sitting.say(f"{count:,} files, {called} …")
        tree = make_flat(sitting.source, sitting.paths, count, sitting.work / "links", folder_size=size)
        layouts[called] = asdict(listed(str(tree)))
        shutil.rmtree(tree)
    for called, size in ((f"bucket, prefixes of {FOLDER_FILES:,}", FOLDER_FILES), ("bucket, one prefix", count)):
        sitting.say(f"{count:,} keys, {called} …")
        layouts[called] = asdict(listed_in_bucket(count, size))
    return {"machine": asdict(sitting.machine), "layouts": layouts}


LISTING = Part(name="listing", section="listing", run=run, is_long=True)
