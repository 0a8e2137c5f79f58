"""All that a GPU is measured by, in one go: its tests, its engine, and whole runs over hard links to images.

    python benchmarks/gpu_sitting.py [--rehearse] [--images DIR] [--weights FILE] [--json FILE]

With --rehearse, the CPU takes the GPU's place, for few images; that shows that all parts work, and measures nothing.
Needs what `make test-gpu` and `mission9 run --runner local` need, and psutil, jinja2 and scikit-learn.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from benchmarks.measure import REPOSITORY
from benchmarks.measure.child import ChildFailed
from benchmarks.measure.runs import whole_run
from benchmarks.measure.trees import images_at_hand, jpegs, make_tree
from benchmarks.report import read, render_part, save

IMAGES = 40_000
# A CPU that emulates bfloat16 takes half a second for an image.
REHEARSED = 4
FEW = ("--count", "2", "--repeats", "1", "--batch-size", "2", "--batch-sizes", "1", "--precision", "float32")
PRECISIONS = ("float32", "bfloat16")

Json = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true", help="on the CPU")
    parser.add_argument("--images", type=Path, help="folder of .jpg files; by default pictures of fruit are generated")
    parser.add_argument("--weights", default="demo")
    parser.add_argument("--json", type=Path, help="the file of figures to put these in, as `gpu`")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            figures = measure(arguments, Path(folder))
    except (ChildFailed, subprocess.CalledProcessError) as error:
        print(f"benchmarks/gpu_sitting.py: {error}", file=sys.stderr)
        return 1
    page = render_part("performance", {"gpu": figures})
    print(page[page.index("## GPU") : page.index("## How to reproduce")])
    if arguments.json and not arguments.rehearse:
        save(read(arguments.json) | {"gpu": figures}, arguments.json)
    return 0


def measure(arguments: argparse.Namespace, work: Path) -> Json:
    """Run the tests, measure the engine and whole runs.

    Raises:
        CalledProcessError: the tests or the benchmark of the engine failed; they said why.
        ChildFailed: a run failed.
    """
    device = "cpu" if arguments.rehearse else "cuda"
    tests = ["-m", "pytest", "-q", "-o", "addopts=-ra", "-o", "filterwarnings=default"]
    run_program(*tests, "tests/models/engines/test_gpu.py")
    engine, weights = work / "engine.json", str(arguments.weights)
    images, _ = images_at_hand(arguments.images, Path("nowhere"), work)
    few = FEW if arguments.rehearse else ()
    common = ("--device", device, "--weights", weights, "--images", str(images), "--json", str(engine))
    run_program("benchmarks/gpu.py", *common, *few)
    count = REHEARSED if arguments.rehearse else IMAGES
    tree = make_tree(images, jpegs(images), count, work / "tree")
    options = ["--engine", "torch", "--device", device, "--weights", weights, "--runner", "local", "--components", "2"]
    runs = {one: whole_run([*options, "--precision", one], tree, work / f"out {one}") for one in PRECISIONS}
    figures: Json = read(engine)["gpu"]
    return figures | {"source": images.name, "runs": runs}


def run_program(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, check=True)  # noqa: S603


if __name__ == "__main__":
    sys.exit(main())
