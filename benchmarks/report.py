"""Render docs/performance.md, and a section of docs/reliability.md, from the figures; what is absent is said to be so.

    python benchmarks/report.py [--figures FILE] [--page FILE]

The text is that of the templates in benchmarks/pages; a part of the benchmark has one of the name of its figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from benchmarks.measure import REPOSITORY, RESULTS

FIGURES = RESULTS / "figures.json"
PAGE = REPOSITORY / "docs" / "performance.md"
RELIABILITY = REPOSITORY / "docs" / "reliability.md"
SECTIONS = ("bench", "image_sizes", "large", "listing", "pack", "soak", "gpu")
MIB = 2**20

Json = dict[str, Any]

_STAGES = ("list", "start", "extract", "compact", "fit", "project", "fidelity", "save_model", "pca_fit", "pca_write")
_KINDS = ("driver", "jvm", "daemon", "worker", "decoder")

# Stages that take as much longer as there are more images.
_GROWING = ("list", "extract", "compact", "fit", "project", "pca_fit", "pca_write")
MACHINE = "c6i.2xlarge"  # of which a core of a sitting is taken for a vCPU


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", type=Path, default=FIGURES)
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    write_pages(read(arguments.figures), arguments.page)
    print(arguments.page)
    return 0


def read(file: Path) -> Json:
    """Return the figures in a file by section; none where there is no file."""
    return dict(json.loads(file.read_bytes())) if file.exists() else {}


def save(figures: Json, file: Path) -> None:
    """Write figures by section, a line for each of a section's."""
    from mission9.storage.local.files import write_atomic

    sections = []
    for name, section in figures.items():
        lines = (f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in section.items())
        sections.append(f"{json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n}")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, ("{\n" + ",\n".join(sections) + "\n}\n").encode())


def write_pages(figures: Json, page: Path = PAGE) -> None:
    """Write the page; where it is the one of the docs, the section of the soak too."""
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render_part("performance", figures), encoding="utf-8")
    if page == PAGE and "soak" in figures:
        put_section(RELIABILITY, "soak", render_part("soak", figures))


def render_part(name: str, figures: Json) -> str:
    """Render the template of a part, or of the whole page, from all figures."""
    return render(name, **{section: figures.get(section, {}) for section in SECTIONS})


def render(name: str, **values: Any) -> str:
    from jinja2 import Environment, FileSystemLoader

    pages = Environment(  # noqa: S701 (Markdown)
        loader=FileSystemLoader(REPOSITORY / "benchmarks" / "pages"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    pages.filters |= {
        "fmt": format,
        "mib": mib,
        "million": million,
        "machine": machine_text,
        "not_measured": lambda command: f"Not measured; `{command}` measures it.",
        "peaks": peak_cells,
        "stages": lambda runs: [stage for stage in _STAGES if any(stage in run["seconds"] for run in runs)],
    }
    from mission9.estimate.instances import note

    return pages.get_template(f"{name}.md").render(values, price_machine=MACHINE, price_note=note())


def mib(size: float, digits: int = 0) -> str:
    return f"{size / MIB:,.{digits}f}"


def million(run: Json, cores: int) -> tuple[float, float]:
    """Return core-hours, and dollars on `MACHINE`, of a million images; stages that do not grow count once."""
    from mission9.estimate.instances import find_instances

    growing = sum(seconds for stage, seconds in run["seconds"].items() if stage in _GROWING)
    hours = cores * (run["wall"] - growing + growing * 1e6 / run["images"]) / 3600
    (machine,) = find_instances([MACHINE])
    return hours, hours * machine.price / machine.vcpus


def machine_text(machine: Json) -> str:
    return (
        f"{machine['cpu']}, {machine['cores']} cores ({', '.join(machine['flags'])}), "
        f"{machine['memory'] / 2**30:.0f} GiB of memory, {machine['system']}, Python {machine['python']}; "
        f"load {machine['load']} before"
    )


def peak_cells(memory: Json, kinds: Iterable[str] = _KINDS) -> str:
    """Return cells of a table: the largest process of each kind and how many there were, then all together, in MiB."""
    peaks = [memory["kinds"].get(kind) for kind in kinds]
    counts = ["" if peak is None or peak["processes"] < 2 else f" ({peak['processes']})" for peak in peaks]
    cells = ["" if peak is None else mib(peak["largest"]) for peak in peaks]
    return " | ".join([*(cell + count for cell, count in zip(cells, counts, strict=True)), mib(memory["together"])])


def put_section(page: Path, name: str, section: str) -> None:
    """Replace the text between `<!-- name -->` and `<!-- /name -->`.

    Raises:
        ValueError: the page has no such marks.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, begun, rest = page.read_text(encoding="utf-8").partition(begin)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        raise ValueError(f"{page} has no {begin.strip()} ... {end}")
    page.write_text(before + begin + section + end + after, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
