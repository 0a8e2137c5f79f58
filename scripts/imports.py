"""Draw the graph of imports in src/mission9, those within functions and for types too: make imports.

A room is a file or folder at the top of the package. The floor of a room is the longest chain of rooms below it. An
import that runs up, against ORDER, is a back-arrow; modules that import each other in a ring are a circle.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "mission9"

# Rooms from the ground up: a module imports its own room and rooms before it.
ORDER = (
    *("_package", "options", "redact", "schema", "system", "concurrency", "errors", "devices", "storage"),
    *("config", "crypto", "sampling", "models", "pca", "model_facts", "decoding", "sources", "runners"),
    *("datasets", "feature_extractor", "output", "privacy", "stages", "pack", "results", "notebook"),
    *("dataframes", "estimate", "html_report", "tracking", "deploy", "doctor", "erasure", "spark_pipeline"),
    *("pipeline", "__init__", "cli", "__main__"),
)


def name_of(file: Path) -> str:
    """The dotted name of a module."""
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> dict[str, ast.Module]:
    """Every module by its name."""
    return {name_of(file): ast.parse(file.read_text()) for file in sorted(PACKAGE.rglob("*.py"))}


def imports(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """The modules that each module imports."""
    return {name: set(_imported(name, tree, trees)) for name, tree in trees.items()}


def _imported(name: str, tree: ast.Module, known: dict[str, ast.Module]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            within = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [module if module in known else str(node.module) for module in within]
        else:
            continue
        yield from (module for module in found if module in known and module != name)


def room_of(module: str) -> str:
    """The room in which a module lies; the package's face is one of its own."""
    return module.split(".")[1] if "." in module else "__init__"


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Modules that import each other in a ring (Tarjan 1972)."""
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(module: str) -> None:
        numbers[module] = lowest[module] = len(numbers)
        stack.append(module)
        for other in graph[module]:
            if other not in numbers:
                visit(other)
            if other in stack:
                lowest[module] = min(lowest[module], lowest[other])
        if lowest[module] == numbers[module]:
            at = stack.index(module)
            found.append(set(stack[at:]))
            del stack[at:]

    for module in graph:
        if module not in numbers:
            visit(module)
    return [ring for ring in found if len(ring) > 1]


def rooms(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The rooms that each room imports."""
    found: dict[str, set[str]] = {room_of(module): set() for module in graph}
    for module, others in graph.items():
        found[room_of(module)] |= {room_of(other) for other in others} - {room_of(module)}
    return found


def back_arrows(graph: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Imports of a room that ORDER has later."""
    place = {room: number for number, room in enumerate(ORDER)}
    return [
        (module, other)
        for module, others in graph.items()
        for other in sorted(others)
        if place[room_of(other)] > place[room_of(module)]
    ]


def floors(graph: dict[str, set[str]]) -> int:
    """The number of rooms in the longest chain of imports that goes down by ORDER."""
    below = rooms(graph)
    place = {room: number for number, room in enumerate(ORDER)}

    @cache
    def floor(room: str) -> int:
        return 1 + max((floor(other) for other in below[room] if place[other] < place[room]), default=0)

    return max(map(floor, below))


def bodies(trees: dict[str, ast.Module]) -> dict[str, int]:
    """The lines of each function's body, without its docstring."""
    found = {}
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0  # type: ignore[operator]
                found[f"{module}.{node.name}:{node.lineno}"] = lines
    return found


def main() -> int:
    """Print the figures; with --arrows, each import that runs up and each circle too."""
    trees = modules()
    graph = imports(trees)
    rings, back = circles(graph), back_arrows(graph)
    sizes = bodies(trees)
    longest = max(sizes, key=lambda name: sizes[name])
    lines = Counter({room_of(name_of(file)): 0 for file in PACKAGE.rglob("*.py")})
    for file in PACKAGE.rglob("*.py"):
        lines[room_of(name_of(file))] += len(file.read_text().splitlines())
    print(f"rooms {len(rooms(graph))}, floors {floors(graph)}, arrows {sum(map(len, rooms(graph).values()))}")
    print(f"back-arrows {len(back)}, circles {len(rings)} of {sum(map(len, rings))} modules")
    median = statistics.median(sizes.values())
    print(f"lines {lines.total():,}, median body {median:g}, longest {sizes[longest]} ({longest})")
    print(", ".join(f"{room} {count:,}" for room, count in lines.most_common()))
    if "--arrows" in sys.argv[1:]:
        for ring in rings:
            print("circle:", ", ".join(sorted(ring)))
        for module, other in back:
            print(f"up: {module} -> {other}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
