"""The wording of docstrings, messages and names: plain terms, and errors of at most 25 words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.conftest import REPOSITORY

SOURCES = REPOSITORY / "src" / "mission9"

MAX_WORDS = 25
CLAUSES = ("What", "Where", "How", "Which", "Who", "Whether")
RETIRED = tuple(
    line for line in (Path(__file__).parent / "retired_words.txt").read_text().splitlines() if line and line[0] != "#"
)
NAMES = {"tell"}  # the method of `io.RawIOBase`
LOGGED = {"debug", "info", "warning", "error", "exception", "critical", "say", "fail"}

Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def test_no_docstring_begins_with_a_clause() -> None:
    folders = (SOURCES, REPOSITORY / "tests", REPOSITORY / "scripts")
    found = [
        f"{place}: {text.partition(chr(10))[0]}"
        for folder in folders
        for place, text in _docstrings(_files(folder))
        if re.match(rf"({'|'.join(CLAUSES)})\b", text)
    ]
    assert found == []


def test_no_retired_word_is_used() -> None:
    pattern = re.compile("|".join(rf"\b{re.escape(word)}\b" for word in RETIRED))
    files = _files(SOURCES)
    texts = [*_docstrings(files), *_raised(files), *_logged(files), *_names(files)]
    assert len(texts) > 1500
    assert [f"{place}: {found[0]}" for place, text in texts if (found := pattern.search(_plain(text)))] == []


def test_an_error_has_at_most_25_words() -> None:
    raised = list(_raised(_files(SOURCES)))
    assert len(raised) > 100
    assert [f"{place}: {text}" for place, text in raised if len(text.split()) > MAX_WORDS] == []


def _files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


@cache
def _nodes_of(file: Path) -> list[tuple[str, ast.AST]]:
    name = file.relative_to(REPOSITORY)
    nodes = ast.walk(ast.parse(file.read_text()))
    return [(f"{name}:{getattr(node, 'lineno', 1)}", node) for node in nodes if isinstance(node, Definition | ast.Call)]


def _nodes(files: list[Path]) -> Iterator[tuple[str, ast.AST]]:
    return (found for file in files for found in _nodes_of(file))


def _docstrings(files: list[Path]) -> Iterator[tuple[str, str]]:
    for place, node in _nodes(files):
        if isinstance(node, Definition) and (text := ast.get_docstring(node)):
            yield place, text


def _names(files: list[Path]) -> Iterator[tuple[str, str]]:
    for place, node in _nodes(files):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", node.name).strip()
            if name not in NAMES:
                yield place, name


def _raised(files: list[Path]) -> Iterator[tuple[str, str]]:
    """The texts of errors, raised or returned; a placeholder is one word."""
    for place, node in _nodes(files):
        called = node.func if isinstance(node, ast.Call) else None
        name = called.id if isinstance(called, ast.Name) else ""
        if isinstance(node, ast.Call) and re.search(r"(Error|^kind|^Gone|^Damaged|^TooManyRejects)$", name):
            yield from ((place, text) for argument in node.args if (text := _text(argument)))


def _logged(files: list[Path]) -> Iterator[tuple[str, str]]:
    for place, node in _nodes(files):
        called = node.func if isinstance(node, ast.Call) else None
        name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
        if isinstance(node, ast.Call) and name in LOGGED:
            yield from ((place, text) for argument in node.args if (text := _text(argument)))


def _text(node: ast.AST) -> str:
    """A constant text, or that of an f-string with X for each placeholder; empty for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) or "X" for part in node.values)
    return ""


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
