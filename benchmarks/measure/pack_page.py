"""The figures of packs as a section of docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]


def pack_lines(figures: Json, machine: str) -> Iterator[str]:
    """Return what was measured, a row for each way in which images lay in the bucket."""
    objects, pack = figures["objects"], figures["pack"]
    yield (
        f"{figures['count']:,} images ({figures['images']}, {figures['total_bytes'] / 1e6:.1f} MB) in a bucket, as "
        f"objects and as a pack, measured on {figures['machine']['date']} by `make bench-pack` on a machine "
        f"that did other work at the same time: {machine}. The server is OpenStack Swift on the loopback, which "
        "answers at once and takes milliseconds of these cores for each request; a cloud's takes its time, and none of "
        "them."
    )
    yield ""
    yield "| as | objects | list, s | read, images/s | extraction, s | whole run, s | rows |"
    yield "|---|---|---|---|---|---|---|"
    for name, way in (("objects", objects), ("pack", pack)):
        lists = ", ".join(f"{one['list_seconds']:.2f}" for one in way["passes"])
        rates = ", ".join(f"{one['read_rate']:,.0f}" for one in way["passes"])
        yield (
            f"| {name} | {way['objects']:,} | {lists} | {rates} | {way['extract_seconds']:.1f} | {way['wall']:.1f} | "
            f"{way['rows']:,} |"
        )
    yield ""
    yield (
        f"The pack over the objects: reading {figures['ratio_of_reading']:.1f} times as fast (medians), extraction "
        f"{figures['ratio_of_extraction']:.2f} times (`{figures['command']}`). Both runs have "
        f"{'the same rows' if figures['same_rows'] else '**other rows**'}; their features differ by at most "
        f"{figures['largest_difference']:.1e}. Packing took {figures['pack_seconds']:.1f} s, once."
    )
