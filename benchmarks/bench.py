"""Speed of mission9 beside what others write for the same job, with a check of what each computes.

    python benchmarks/bench.py [--images DIR] [--weights FILE] [--peers DIR] [--json FILE] [--only PART ...] [--long]
                               [-- options of mission9 run, for large and soak]

All is measured in one sitting, on the same images, weights and cores, one program after the other; each runs in a
process of its own, and is timed around that process and by its own account. The parts:

loop          the bare engine on one core, images decoded in memory
isolation     a worker's loop on one core, decoding in child processes and in itself
spark, local  `mission9 run` with Spark and with worker processes, float32
int8          both with --precision int8
second        the same command again over unchanged images
pandas-udf    the usual way on Spark: a pandas UDF, Spark ML's PCA
torch-loader  the usual way without Spark: torch's DataLoader, channels last, scikit-learn's PCA
others        Spark's predict_batch_udf; Ray Data and Daft where they are installed
pca           the PCA fit alone: ours, Spark ML's, scikit-learn's
curve         both runners at further sizes: what a run costs whatever its size, and what an image costs
long          with --long: 16,000 images, ours and the pandas UDF (half an hour more)

and, only where --only names them, each with figures of its own:

image-sizes   whole runs over images of 100 x 100, 500 x 375 and 4000 x 3000, ours and two peers
large         speed and memory at 67,692 images, held against those at 4,000
listing       listing and planning alone of a million files and keys
pack          what packing images gains, in a bucket on a server of its own (make s3-server)
soak          200,000 images: memory, open files and temporary space over time

Figures go to benchmarks/results/figures.json and into the docs. Parts of the comparison alone, the first list, never
take the place of a whole sitting: their figures go to --json and --page, if these are given.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from benchmarks.measure import SHARED
from benchmarks.measure.child import ChildFailed
from benchmarks.measure.results import RUNNERS
from benchmarks.measure.sitting import Sitting
from benchmarks.parts.comparison import COMPARISON
from benchmarks.parts.image_sizes import IMAGE_SIZES
from benchmarks.parts.large import LARGE
from benchmarks.parts.listing import LISTING
from benchmarks.parts.pack import PACK
from benchmarks.parts.soak import SOAK
from benchmarks.report import FIGURES, PAGE, read, save, write_pages

PARTS = {part.name: part for part in (*COMPARISON, IMAGE_SIZES, LARGE, LISTING, PACK, SOAK)}
PRECISIONS = ("float32", "int8")


def main() -> int:
    arguments = parse()
    parts = [PARTS[name] for name in arguments.only or [part.name for part in COMPARISON if not part.is_long]]
    parts += [PARTS["long"]] if arguments.long and PARTS["long"] not in parts else []
    is_partial = arguments.only and any(part in COMPARISON for part in parts)
    file = arguments.json or (None if is_partial else FIGURES)
    page = arguments.page or (PAGE if file == FIGURES else None)
    figures = read(file) if file else {}
    with tempfile.TemporaryDirectory(prefix="mission9-bench-", dir=arguments.work) as folder:
        sitting = Sitting(arguments, Path(folder).resolve())
        for part in parts:
            try:
                figures[part.section] = part.run(sitting)
            except ChildFailed as error:
                sitting.failures[part.name] = str(error)
            if file:
                save(figures, file)
    for part in {part.section: part for part in parts if part.section in figures}.values():
        print(part.render(figures[part.section]))
    if page:
        write_pages(figures, page)
        print(f"figures in {file}, page in {page}")
    for name, why in sitting.failures.items():
        print(f"benchmarks/bench.py: {name} failed: {why}", file=sys.stderr)
    return 1 if sitting.failures else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of .jpg images (default: ../shared/fruits-360, else drawn)")
    parser.add_argument("--weights", help="demo, or a .pth file (default: the one in ../shared/weights, else demo)")
    parser.add_argument("--peers", type=Path, default=SHARED / "peers", help="folder of the peers' scripts")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--page", type=Path, help="file for the page that is made of them")
    parser.add_argument("--work", type=Path, help="folder to make links and results in (default: the system's)")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--long", action="store_true", help="also the long comparison")
    parser.add_argument("--runners", nargs="+", choices=RUNNERS, default=list(RUNNERS), help="default: both")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="of loop: default both")
    parser.add_argument("--count", type=int, help="images of the main comparison (default: 4000), or of a long part")
    parser.add_argument("--few", type=int, default=600, help="images of the small comparison (default: 600)")
    parser.add_argument("--long-count", type=int, default=16000, help="images of the long one (default: 16000)")
    parser.add_argument("--base", type=int, default=4000, help="images that large is held against (default: 4000)")
    parser.add_argument("--sizes", nargs="*", type=int, default=[500, 1000, 2000], help="further points of the curve")
    parser.add_argument("--components", type=int, default=50, help="of our PCA; the peers' have 50 (default: 50)")
    parser.add_argument("--repeats", type=int, default=3, help="passes of loop, pca and pack (default: 3)")
    parser.add_argument("--loop-seconds", type=float, default=4.0, help="seconds of a pass of loop (default: 4)")
    parser.add_argument("options", nargs="*", help="after --: options of mission9 run, for large and soak")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
