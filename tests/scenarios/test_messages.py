"""The command line's own words reach the user as they were written; what others put in them is redacted."""

from __future__ import annotations

import ast
import shlex
from collections.abc import Iterator

import pytest

from mission9.cli import main
from mission9.redact import redact, shown
from tests.conftest import REPOSITORY

WORDS = ("photos", "3", "'photos'", "['a', 'b']", "s3://bucket/x", "a=b", "--input")

# Command lines that cannot be, and what they are told.
WRONG = {
    "run photos": "mission9 run has no place for photos: is it --input photos? (mission9 run --help)",
    "run 'a b' c": "mission9 run has no place for 'a b' c: is it --input 'a b'? (mission9 run --help)",
    "doctor photos": "mission9 doctor has no place for photos: is it --input photos? (mission9 doctor --help)",
    "report a b": "mission9 report has no place for b: is it --input b? (mission9 report --help)",
    "verify a b": "mission9 verify has no place for b: (mission9 verify --help)",
    "deploy emr x": "mission9 deploy emr has no place for x: is it --input x? (mission9 deploy emr --help)",
    "erase results": "mission9 erase needs --ids or --older-than, and not both (mission9 erase --help)",
    "run --max-pixels": "mission9 run needs a value for --max-pixels (mission9 run --help)",
    "project": "mission9 project needs IMAGES (mission9 project --help)",
    "run --nope": "Unknown option: --nope. Did you mean --input?",
    "run --runner x": "runner = 'x': Input should be 'auto', 'spark' or 'local'",
    "subset --percentage a": 'Invalid value for --percentage: unable to convert "a" into float.',
}


@pytest.mark.parametrize(("line", "told"), WRONG.items())
def test_a_wrong_command_line_is_told_in_plain_words(line: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(shlex.split(line)) == 2
    assert capsys.readouterr().err == f"mission9: {told}\n"


def test_no_text_of_ours_is_taken_for_a_secret() -> None:
    texts = set(_texts())
    assert len(texts) > 1000
    assert not [text for text in texts if redact(text) != text]


def test_what_parsers_say_of_tokens_is_no_secret() -> None:
    for text in ("Unused Tokens: ['photos'].", "Unexpected token: '<' at 3", "unrecognized token: x"):
        assert shown(text) == text
    for text in ("Tokens: ['photos']", "invalid token: hunter2", "unused; token: hunter2"):
        assert "***" in shown(text)


def _texts() -> Iterator[str]:
    """Every text with a space in mission9, with words in the place of what is put in."""
    for file in (REPOSITORY / "src" / "mission9").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield from {"".join(_part(part, word) for part in node.values) for word in WORDS}
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                yield node.value


def _part(part: ast.expr, word: str) -> str:
    return str(part.value) if isinstance(part, ast.Constant) else word
