"""Speed of a GPU that turns images into features, its bounds, and the fidelity of each precision.

    python benchmarks/gpu.py [--images DIR] [--weights FILE|demo] [--count N] [--json FILE]

Needs torch, Pillow, pyarrow, numpy and safetensors; no Spark and no network. Every rate is in images a second, the
median of several passes after one that is not counted:

decode      reader processes alone: files are read, decoded and resized
model       the network alone, at so many images a step (*: the number that infer_features takes); pixels lie on the
            device already
end to end  files to features, through `infer_features`
of bound    end to end as a share of the slower of decode and model

Files are read again and again, so they come from the operating system's cache.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any, Literal, cast, get_args

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import numpy as np
import torch
from benchmarks.report import read, save
from numpy.typing import NDArray

from mission9 import devices
from mission9.datasets.demo import VARIETIES, draw, jpeg
from mission9.decoding.pixels import pixels_digest
from mission9.errors import InputError, Mission9Error, SetupError
from mission9.models.engines import choose_engine, make_engine
from mission9.models.engines.torch_engine import TorchEngine
from mission9.models.extraction import Extraction
from mission9.models.weights import load_weights
from mission9.options import MAX_BYTES, MAX_PIXELS, Precision
from mission9.sources import find_root
from mission9.sources.list_images import list_images
from mission9.sources.listing import ListingCounts
from mission9.stages.infer_features import infer_features
from mission9.stages.prepare_images import ImageRow, Pixels, prepare_ahead

Device = Literal["cuda", "cpu"]
Features = NDArray[np.float32]
Json = dict[str, Any]

PRECISIONS: dict[Device, tuple[Precision, ...]] = {
    "cuda": ("float32", "bfloat16", "float16"),
    "cpu": ("float32", "bfloat16"),
}
BATCH_SIZES = {"cuda": (16, 64, 256, 1024), "cpu": (1, 16)}  # for the model alone
COUNTS = {"cuda": 4096, "cpu": 64}
MODEL_IMAGES = {"cuda": 4096, "cpu": 1}  # about so many in a pass of the model alone
DISTINCT = 640  # generated pictures, as many as `mission9 demo` draws
COMPARED = 64  # images whose features are held against those of float32 on the CPU
DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Inputs of the measurement of each precision; `decode` is the rate of decoding alone."""

    device: Device
    rows: list[ImageRow]
    pixels: Pixels
    right: Features
    decode: float
    batch_sizes: tuple[int, ...]
    repeats: int


def main() -> int:
    arguments = parse()
    try:
        report = measure(arguments)
    except (Mission9Error, ImportError) as error:
        print(f"benchmarks/gpu.py: {error}", file=sys.stderr)
        return 1
    print(*as_text(report), sep="\n")
    if arguments.json:
        save(read(arguments.json) | {"gpu": report}, arguments.json)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="folder of images; by default pictures of fruit are generated")
    parser.add_argument("--weights", default="demo", help="demo, or a .pth or .safetensors file (default: demo)")
    parser.add_argument("--count", type=positive, help="images a pass, repeated if fewer (default: 4096, on a CPU 64)")
    parser.add_argument("--json", type=Path, help="a file of figures to put these in, as `gpu`")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--precision", nargs="+", choices=get_args(Precision), help="default: all that are possible")
    parser.add_argument("--batch-size", type=positive, help="images a step in infer_features (default: the engine's)")
    parser.add_argument("--batch-sizes", nargs="+", type=positive, help="others, for the model alone")
    parser.add_argument("--repeats", type=positive, default=5, help="passes that count (default: 5)")
    parser.add_argument("--cudnn-benchmark", action="store_true", help="let cuDNN try its algorithms and choose")
    return parser.parse_args()


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def measure(arguments: argparse.Namespace) -> Json:
    """Everything.

    Raises:
        Mission9Error: there is no such device, or images or weights cannot be used.
    """
    device: Device = arguments.device
    first = float32_on(device, arguments.weights, arguments.batch_size)
    torch.backends.cudnn.benchmark = arguments.cudnn_benchmark
    count = arguments.count or COUNTS[device]
    with tempfile.TemporaryDirectory() as folder:
        images = listed(arguments.images or draw_images(Path(folder), min(count, DISTINCT)))
        bench = prepare_bench(first, list(islice(cycle(images), count)), arguments)
        precisions = arguments.precision or PRECISIONS[device]
        results = {name: measure_precision(in_precision(first, name), bench) for name in precisions}
    return {
        "machine": machine(device),
        "weights": Path(first.weights.name).name,
        "source": arguments.images or "generated",
        "images": count,
        "distinct": min(count, len(images)),
        "repeats": arguments.repeats,
        "cudnn_benchmark": arguments.cudnn_benchmark,
        "readers": devices.decode_threads() if device == "cuda" else 1,
        "decode": bench.decode,
        "precisions": results,
    }


def float32_on(device: Device, weights: str, batch_size: int | None) -> Extraction:
    why_not = devices.why_no_cuda() if device == "cuda" else ""
    if why_not:
        raise SetupError(f"there is no GPU to measure: {why_not}; --device cpu measures the CPU")
    return Extraction(
        engine=choose_engine(engine="torch", device=device, batch_size=batch_size),
        weights=load_weights(weights),
        preprocess="stretch",
        max_pixels=MAX_PIXELS,
        max_bytes=MAX_BYTES,
        pixels=pixels_digest(),
    )


def in_precision(extraction: Extraction, precision: Precision) -> Extraction:
    spec = extraction.engine
    chosen = choose_engine(engine="torch", device=spec.device, precision=precision, batch_size=spec.batch_size)
    return replace(extraction, engine=chosen)


def draw_images(root: Path, count: int) -> str:
    """Draw pictures into a folder, and return its name."""
    folder = root / "images"
    folder.mkdir()
    for n in range(count):
        picture = draw(VARIETIES[n % len(VARIETIES)], stream=0, number=n // len(VARIETIES))
        (folder / f"{n}.jpg").write_bytes(jpeg(picture))
    return str(root)


def listed(folder: str) -> list[ImageRow]:
    root = find_root(folder)
    found = [row for batch in list_images(root, ListingCounts()) for row in batch.to_pylist()]
    if not found:
        raise InputError(f"there are no images in {folder}")
    return [ImageRow(row["path"], row["split"], row["label"], row["bytes"], root) for row in found]


def prepare_bench(first: Extraction, rows: list[ImageRow], arguments: argparse.Namespace) -> Bench:
    compared = rows[:: -(-len(rows) // COMPARED)]  # of all labels
    pixels = np.concatenate([batch.pixels.copy() for batch in prepare_ahead(compared, first)])
    if not len(pixels):
        raise InputError(f"none of {len(compared)} images in {arguments.images} can be decoded")
    cpu = make_engine(choose_engine(engine="torch", device="cpu"), first.weights, threads=0)
    return Bench(
        device=arguments.device,
        rows=rows,
        pixels=pixels,
        right=cpu(pixels),
        decode=rate(lambda: sum(len(batch.rows) for batch in prepare_ahead(rows, first)), arguments.repeats),
        batch_sizes=tuple(arguments.batch_sizes or BATCH_SIZES[arguments.device]),
        repeats=arguments.repeats,
    )


def engine_of(extraction: Extraction) -> TorchEngine:
    """The very engine that infer_features takes."""
    return cast(TorchEngine, make_engine(extraction.engine, extraction.weights, threads=0))


def measure_precision(extraction: Extraction, bench: Bench) -> Json:
    """Measure rates, by batch size for the model alone (None: not the memory for it), and fidelity."""
    engine = engine_of(extraction)
    fidelity = compare(engine(bench.pixels), bench.right)
    end_to_end = rate(lambda: sum(map(len, infer_features(bench.rows, extraction, threads=0))), bench.repeats)
    # Only now, since the engine takes smaller batches where there is not the memory for those of its size.
    batch_size = engine.batch_size
    model = {str(size): model_rate(engine, bench, size) for size in sorted({*bench.batch_sizes, batch_size})}
    return {
        "batch_size": batch_size,
        "model": model,
        "end_to_end": end_to_end,
        "of_bound": end_to_end / min(bench.decode, model[str(batch_size)] or bench.decode),
        "fidelity": fidelity,
    }


def model_rate(engine: TorchEngine, bench: Bench, batch_size: int) -> float | None:
    place = f"cuda:{devices.cuda_index()}" if bench.device == "cuda" else "cpu"
    steps = max(1, MODEL_IMAGES[bench.device] // batch_size)
    try:
        pixels = torch.from_numpy(bench.pixels[np.arange(batch_size) % len(bench.pixels)]).to(place)

        def infer() -> int:
            for _ in range(steps):
                engine.on_device(pixels)
            if bench.device == "cuda":
                torch.cuda.synchronize(place)
            return steps * batch_size

        return rate(infer, bench.repeats)
    except torch.OutOfMemoryError:
        return None


def rate(work: Callable[[], int], repeats: int) -> float:
    """Images a second of `work`, which returns how many it did: the median, after a first time that is not counted."""
    work()
    return median(timed(work) for _ in range(repeats))


def timed(work: Callable[[], int]) -> float:
    start = time.perf_counter()
    images = work()
    return images / (time.perf_counter() - start)


def compare(found: Features, right: Features) -> Json:
    """Hold features against those of float32 on the CPU; an error is a difference's length over the right vector's."""
    a, b = found.astype(np.float64), right.astype(np.float64)
    lengths = np.linalg.norm(b, axis=1)
    cosines = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * lengths)
    error = float((np.linalg.norm(a - b, axis=1) / lengths).max())
    means = {"cosine_mean": float(cosines.mean()), "cosine_min": float(cosines.min())}
    return {"images": len(b), **means, "relative_error_max": error}


def machine(device: Device) -> Json:
    on_gpu = device == "cuda"
    return {
        "device": torch.cuda.get_device_name(devices.cuda_index()) if on_gpu else platform.processor() or "CPU",
        "driver": driver() if on_gpu else None,
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
    }


def driver() -> str | None:
    """The version of NVIDIA's driver; None where the system does not tell it."""
    found = re.search(r"\b\d{3,}\.\d[\d.]*", DRIVER.read_text()) if DRIVER.exists() else None
    return found[0] if found else None


def as_text(report: Json) -> Iterator[str]:
    """Lines: the machine, the images, and a table with a row for each precision."""
    yield ", ".join(f"{name} {value}" for name, value in report["machine"].items() if value)
    yield (
        f"{report['images']:,} images a pass ({report['distinct']:,} distinct, {report['source']}), weights "
        f"{report['weights']}"
    )
    yield f"decode {report['decode']:,.0f} images/s by {report['readers']} readers"
    results = report["precisions"]
    sizes = sorted({size for result in results.values() for size in result["model"]}, key=int)
    heads = [f"model @{size}" for size in sizes] + ["end to end", "of bound", "cosine mean", "min", "error max"]
    yield "precision " + " ".join(f"{head:>12}" for head in heads)
    for name, result in results.items():
        yield f"{name:<9} " + " ".join(f"{cell:>12}" for cell in cells(result, sizes))


def cells(result: Json, sizes: Sequence[str]) -> Iterator[str]:
    for size in sizes:
        speed = result["model"].get(size)
        taken = "*" if int(size) == result["batch_size"] else ""
        yield "-" if speed is None else f"{taken}{speed:,.0f}"
    fidelity = result["fidelity"]
    yield f"{result['end_to_end']:,.0f}"
    yield f"{result['of_bound']:.0%}"
    yield f"{fidelity['cosine_mean']:.6f}"
    yield f"{fidelity['cosine_min']:.6f}"
    yield f"{fidelity['relative_error_max']:.1e}"


if __name__ == "__main__":
    sys.exit(main())
