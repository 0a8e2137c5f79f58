"""docs/performance.md, from the figures of the benchmarks; what was not measured is said to be so.

python benchmarks/report.py [--bench FILE] [--large FILE] [--gpu FILE] [--pack FILE] [--page FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from benchmarks.measure import REPOSITORY, RESULTS
from benchmarks.measure.pack_page import pack_lines

PAGE = REPOSITORY / "docs" / "performance.md"
MIB = 2**20

Json = dict[str, Any]

_STAGES = ("list", "start", "extract", "compact", "fit", "project", "fidelity", "save_model", "pca_fit", "pca_write")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bench", "large", "gpu", "pack"):
        parser.add_argument(f"--{name}", type=Path, default=RESULTS / f"{name}.json")
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    write_page(
        arguments.page,
        bench=arguments.bench,
        large=arguments.large,
        gpu=arguments.gpu,
        pack=arguments.pack,
    )
    print(arguments.page)
    return 0


def write_page(
    page: Path,
    *,
    bench: Path = RESULTS / "bench.json",
    large: Path = RESULTS / "large.json",
    gpu: Path = RESULTS / "gpu.json",
    pack: Path = RESULTS / "pack.json",
) -> None:
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(lines(read(bench), read(large), read(gpu), read(pack))) + "\n", encoding="utf-8")


def read(file: Path) -> Json:
    """The figures in a file; none where there is none."""
    return dict(json.loads(file.read_bytes())) if file.exists() else {}


def lines(bench: Json, large: Json, gpu: Json, pack: Json) -> Iterator[str]:
    yield "# Performance"
    yield ""
    yield from measured_on(bench)
    sections = (
        ("Ratios", ratio_table(bench)),
        ("Runs", run_table(bench)),
        ("Cost curve", curve_table(bench)),
        ("Where the seconds go", stage_table(bench)),
        ("Engine", loop_table(bench)),
        ("PCA", pca_table(bench)),
        ("Second run", second_text(bench)),
        ("Memory", memory_table(bench)),
        ("Many images", large_table(large)),
        ("Listing", listing_table(large)),
        ("Packs", pack_text(pack)),
        ("GPU", gpu_table(gpu)),
    )
    for title, text in sections:
        yield ""
        yield f"## {title}"
        yield ""
        yield from text
    yield ""
    yield from reproduce()


def measured_on(bench: Json) -> Iterator[str]:
    if not bench:
        yield "Not measured on a CPU yet: `make bench` measures, and writes this page."
        return
    machine, sizes = bench["machine"], bench["sizes"]
    yield (
        f"Measured on {machine['date']} by `make bench`, all in one sitting: every program on the same images, weights "
        "and cores, one after the other, each in a process of its own."
    )
    yield ""
    yield f"- machine: {machine_text(machine)}"
    yield f"- images: {bench['images']}, {bench['distinct']:,} distinct; {links_text(bench['distinct'], sizes['many'])}"
    yield f"- weights: {bench['weights']['name']}, SHA-256 `{bench['weights']['sha256'][:16]}…`"
    yield f"- features are held against: {bench['reference']}"
    yield f"- {', '.join(f'{name} {version}' for name, version in machine['packages'].items())}"
    yield "- files come from the operating system's cache"


def machine_text(machine: Json) -> str:
    return (
        f"{machine['cpu']}, {machine['cores']} cores ({', '.join(machine['flags'])}), "
        f"{machine['memory'] / 2**30:.0f} GiB of memory, {machine['system']}, Python {machine['python']}; "
        f"load {machine['load']} before"
    )


def links_text(distinct: int, many: int) -> str:
    if many <= distinct:
        return "fewer are a share of every label"
    return "more are hard links to the same files under new names"


def ratio_table(bench: Json) -> Iterator[str]:
    if not bench:
        yield not_measured("make bench")
        return
    yield (
        "A ratio above 1 means that mission9 is faster, except where the goal is an upper limit. "
        "Extraction is from images to features, by each program's own account; a whole run is timed around the "
        "process, its start included. `make bench` makes all rows."
    )
    yield ""
    yield from table(["figure", "ours", "theirs", "ratio", "goal", "", "correctness"], map(ratio_row, bench["ratios"]))
    yield ""
    yield (
        "Correctness: the smallest cosine of the features to the reference, of so many images; the worst column of "
        "scores against scikit-learn's PCA of the same features (its difference's length over its own); rows over "
        "images. Programs fit on different rows: ours on Training, the others on all. The torch loader's `PCA(50)` "
        "takes scikit-learn's randomized solver, which approximates the later components."
    )


def ratio_row(ratio: Json) -> list[str]:
    if ratio["ratio"] is None:
        return [ratio["figure"], "", "", "not measured", goal_text(ratio), "", ratio["reason"]]
    met = {True: "met", False: "**missed**", None: ""}[ratio["met"]]
    theirs = "" if ratio["theirs"] is None else f"{ratio['theirs']:,.4g} {ratio['unit']}"
    mine = f"{ratio['ours']:,.4g} {ratio['unit']}"
    value = f"{ratio['ratio']:.2f}" if ratio["how"] != "ours" else ""
    return [ratio["figure"], mine, theirs, value, goal_text(ratio), met, ratio["correctness"]]


def goal_text(ratio: Json) -> str:
    return (ratio["goal"] or "").replace(">=", "≥").replace("<=", "≤")


def run_table(bench: Json) -> Iterator[str]:
    if not bench.get("runs"):
        yield not_measured("make bench")
        return
    heads = ["run", "images", "command", "whole, s", "images/s", "extraction, images/s", "cosine", "relative error"]
    yield from table(heads, map(run_row, bench["runs"].values()))
    for run in bench["runs"].values():
        if run["fidelity"] and run["name"].startswith("Spark"):
            facts = ", ".join(f"{name} {value}" for name, value in run["fidelity"].items())
            yield ""
            yield f"`{run['command']}` reports of itself, against float32: {facts}."
    if bench["skipped"]:
        yield ""
        yield "Not measured:"
        yield ""
        yield from (f"- {name}: {why}" for name, why in bench["skipped"].items())


def run_row(run: Json) -> list[str]:
    check = run["check"]
    compared = check["cosine_min"] is not None
    return [
        run["name"],
        f"{run['images']:,}",
        f"`{run['command']}`",
        f"{run['wall']:.1f}",
        f"{run['whole']:.1f}",
        f"{run['extraction']:.1f}",
        f"{check['cosine_min']:.6f} ({check['compared']})" if compared else "",
        f"{check['relative_error_max']:.1e}" if compared else "",
    ]


def curve_table(bench: Json) -> Iterator[str]:
    if not bench.get("curve"):
        yield not_measured('make bench ARGS="--only curve"')
        return
    yield (
        "Seconds of a whole run = fixed + seconds an image, by number of images, by least squares (`make bench`; "
        'the curve alone: `make bench ARGS="--only curve"`). The fixed part is what a run costs that has next to '
        "nothing to do."
    )
    yield ""
    heads = ["runner", "fixed, s", "an image, ms", "images/s at the margin", "worst residual, s", "measured"]
    yield from table(heads, (curve_row(name, line) for name, line in bench["curve"].items()))


def curve_row(name: str, line: Json) -> list[str]:
    points = ", ".join(f"{images:,}: {wall:.1f} s" for images, wall in line["points"])
    margin = f"{1 / line['per_image']:.0f}" if line["per_image"] > 0 else ""
    numbers = [f"{line['fixed']:.1f}", f"{1000 * line['per_image']:.2f}", margin, f"{line['worst']:.1f}"]
    return [name, *numbers, points]


def stage_table(bench: Json) -> Iterator[str]:
    runs = [run for run in bench.get("runs", {}).values() if run["images"] == bench["sizes"]["many"]]
    if not runs:
        yield not_measured("make bench")
        return
    stages = [stage for stage in _STAGES if any(stage in run["seconds"] for run in runs)]
    yield (
        f"Seconds at {bench['sizes']['many']:,} images. The rest is what no stage counts: the process's start and end, "
        "imports, and with int8 the calibration."
    )
    yield ""
    yield from table(["run", *stages, "rest", "whole"], (stage_row(run, stages) for run in runs))


def stage_row(run: Json, stages: list[str]) -> list[str]:
    cells = [f"{run['seconds'][stage]:.1f}" if stage in run["seconds"] else "" for stage in stages]
    rest = run["wall"] - sum(run["seconds"].values())
    return [run["name"], *cells, f"{rest:.1f}", f"{run['wall']:.1f}"]


def loop_table(bench: Json) -> Iterator[str]:
    if not bench.get("loops"):
        yield not_measured('make bench ARGS="--only loop"')
        return
    yield (
        "The bare engine: one process on one core, images decoded in memory, nothing read or written "
        '(`make bench ARGS="--only loop"`).'
    )
    yield ""
    heads = ["precision", "engine", "images a step", "images/s on one core", "passes"]
    yield from table(heads, map(loop_row, bench["loops"].values()))


def loop_row(loop: Json) -> list[str]:
    passes = ", ".join(f"{rate:.1f}" for rate in loop["passes"])
    return [loop["precision"], loop["engine"], str(loop["batch_size"]), f"{loop['rate']:.1f}", passes]


def pca_table(bench: Json) -> Iterator[str]:
    times = bench.get("pca")
    if not times:
        yield not_measured('make bench ARGS="--only pca"')
        return
    places = {
        "InProcessRunner": "in the process of a run",
        "SparkRunner": "on Spark",
        "LocalRunner": "on worker processes",
    }
    where = f"ours {places[times['runner']]}, Spark ML's in a warm session"
    yield (
        f"{times['components']} components of {times['rows']:,} rows of 1280 features, {where}; ours and Spark ML's "
        "from the same Parquet files, scikit-learn's (`covariance_eigh`) in memory; the median of "
        f'{times["repeats"]} fits after one that is not counted (`make bench ARGS="--only pca"`). Angle and difference '
        "are those of the components to scikit-learn's in float64."
    )
    yield ""
    heads = ["fit", "median, s", "each, s", "largest principal angle", "largest difference"]
    yield from table(heads, (pca_row(name, fit) for name, fit in times["fits"].items()))


def pca_row(name: str, fit: Json) -> list[str]:
    each = ", ".join(f"{seconds:.2f}" for seconds in fit["seconds"])
    return [name, f"{fit['median']:.2f}", each, f"{fit['angle']:.1e}", f"{fit['difference']:.1e}"]


def second_text(bench: Json) -> Iterator[str]:
    second = bench.get("second")
    if not second:
        yield not_measured('make bench ARGS="--only second"')
        return
    stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in second["seconds"].items())
    yield (
        f"`{second['command']}` again over the same {second['images']:,} images "
        f'(`make bench ARGS="--only second"`): {second["wall"]:.1f} s, {second["images_inferred"]:,} images inferred '
        f"({stages})."
    )


def memory_table(bench: Json) -> Iterator[str]:
    runs = [run for run in bench.get("runs", {}).values() if run["images"] == bench["sizes"]["many"]]
    if not runs:
        yield not_measured("make bench")
        return
    yield (
        f"Peaks in MiB at {bench['sizes']['many']:,} images, sampled every second "
        f"({runs[0]['memory']['measure']}): the largest process of each kind, and how many there were, and all "
        "together. `driver` is the command's own process, `jvm` Spark's Java, `daemon` the parent of Spark's Python "
        "workers, `decoder` a child that decodes, `worker` every other Python."
    )
    yield ""
    kinds = ("driver", "jvm", "daemon", "worker", "decoder")
    yield from table(["run", *kinds, "together"], (memory_row(run["name"], run["memory"], kinds) for run in runs))


def memory_row(name: str, memory: Json, kinds: Iterable[str]) -> list[str]:
    return [name, *(peak_text(memory["kinds"].get(kind)) for kind in kinds), f"{memory['together'] / MIB:,.0f}"]


def peak_text(peak: Json | None) -> str:
    if peak is None:
        return ""
    times = f" ({peak['processes']})" if peak["processes"] > 1 else ""
    return f"{peak['largest'] / MIB:,.0f}{times}"


def large_table(figures: Json) -> Iterator[str]:
    large = figures.get("large")
    if not large:
        yield not_measured("make bench-large")
        return
    yield (
        f"`{large['command']}` on hard links to {large['distinct']:,} images ({large['images']}), measured on "
        f"{large['machine']['date']} by `make bench-large`: {machine_text(large['machine'])}."
    )
    yield ""
    kinds = ("driver", "jvm", "daemon", "worker", "decoder")
    heads = ["images", "whole, s", "images/s", "extraction, images/s", *(f"{kind}, MiB" for kind in kinds), "together"]
    yield from table(heads, (large_row(run, kinds) for run in large["runs"]))
    yield ""
    peaks = ", ".join(f"{kind} {ratio:.2f}" for kind, ratio in large["ratios_of_peaks"].items())
    yield (
        f"The larger run over the smaller: images/s {large['ratio_of_rates']:.2f}, extraction "
        f"{large['ratio_of_extraction']:.2f}; peaks of memory ({large['runs'][0]['memory']['measure']}): {peaks}."
    )
    yield ""
    stages = list(large["runs"][0]["seconds"])
    rows = ([f"{run['images']:,}", *(f"{run['seconds'][stage]:.1f}" for stage in stages)] for run in large["runs"])
    yield from table(["images; seconds", *stages], rows)


def large_row(run: Json, kinds: Iterable[str]) -> list[str]:
    rates = [f"{run['wall']:.1f}", f"{run['rate']:.1f}", f"{run['extraction']:.1f}"]
    return [f"{run['images']:,}", *rates, *memory_row("", run["memory"], kinds)[1:]]


def pack_text(figures: Json) -> Iterator[str]:
    if not figures:
        yield not_measured("make bench-pack")
        return
    yield from pack_lines(figures, machine_text(figures["machine"]))


def listing_table(figures: Json) -> Iterator[str]:
    listings = figures.get("listings")
    if not listings:
        yield not_measured('make bench-large ARGS="--listing"')
        return
    yield (
        "Listing and planning alone, each in a fresh process, measured on "
        f'{listings["machine"]["date"]} by `make bench-large ARGS="--listing"`: {machine_text(listings["machine"])}. '
        "The bucket is a server on the loopback that lists keys, a thousand at a time, and holds no objects; a cloud's "
        "answers take longer, and sixteen prefixes are listed at once."
    )
    yield ""
    heads = ["layout", "files", "s", "shards", "peak, MiB RSS", "before listing, MiB"]
    yield from table(heads, (listing_row(name, found) for name, found in listings["layouts"].items()))


def listing_row(name: str, found: Json) -> list[str]:
    memory = [f"{found['peak'] / MIB:,.0f}", f"{found['before'] / MIB:,.0f}"]
    return [name, f"{found['images']:,}", f"{found['seconds']:.1f}", f"{found['shards']:,}", *memory]


def gpu_table(gpu: Json) -> Iterator[str]:
    if not gpu:
        yield not_measured('make bench-gpu ARGS="--json benchmarks/results/gpu.json"')
        return
    machine = gpu["machine"]
    yield (
        f"{machine['device']}, driver {machine['driver']}, CUDA {machine['cuda']}, torch {machine['torch']}, "
        f"{machine['cores']} cores; {gpu['images']:,} images a pass ({gpu['distinct']:,} distinct, "
        f"{Path(gpu['source']).name}), weights {gpu['weights']}; images/s, the median of {gpu['repeats']} passes "
        '(`make bench-gpu ARGS="--json benchmarks/results/gpu.json"`). '
        f"Decoding alone: {gpu['decode']:,.0f} on {gpu['decode_threads']} threads."
    )
    yield ""
    heads = ["precision", "model alone", "end to end", "of bound", "cosine mean", "cosine min", "relative error"]
    yield from table(heads, (gpu_row(name, result) for name, result in gpu["precisions"].items()))


def gpu_row(name: str, result: Json) -> list[str]:
    model = result["model"].get(str(result["batch_size"]))
    fidelity = result["fidelity"]
    return [
        name,
        "" if model is None else f"{model:,.0f} (at {result['batch_size']})",
        f"{result['end_to_end']:,.0f}",
        f"{result['of_bound']:.0%}",
        f"{fidelity['cosine_mean']:.6f}",
        f"{fidelity['cosine_min']:.6f}",
        f"{fidelity['relative_error_max']:.1e}",
    ]


def not_measured(command: str) -> str:
    return f"Not measured; `{command}` measures it."


def table(heads: list[str], rows: Iterable[list[str]]) -> Iterator[str]:
    yield row_text(heads)
    yield "|" + "---|" * len(heads)
    yield from map(row_text, rows)


def row_text(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def reproduce() -> Iterator[str]:
    yield "## How to reproduce"
    yield ""
    yield "```bash"
    yield "make bench                                    # all of the above but the last four sections"
    yield 'make bench ARGS="--long"                      # and the comparison at 16,000 images'
    yield 'make bench ARGS="--only pca --json pca.json"  # a part alone; this page stays'
    yield "make bench-large                              # many images"
    yield 'make bench-large ARGS="--listing"             # a million files'
    yield "make bench-pack                               # packs"
    yield 'make bench-gpu ARGS="--json benchmarks/results/gpu.json"'
    yield "python benchmarks/report.py                   # this page again, from the figures in benchmarks/results"
    yield "```"
    yield ""
    yield (
        "`--images DIR`, `--weights FILE` and `--peers DIR` say what to measure with; without images at hand, "
        "generated ones are taken, and without the peers' scripts their rows say so."
    )


if __name__ == "__main__":
    sys.exit(main())
