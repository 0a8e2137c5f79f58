from __future__ import annotations

import csv
import io
import unicodedata
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mission9.erasure.search import Search, holds_erased_paths
from mission9.output.csv_text import guarded, unguarded
from mission9.schema import projected
from mission9.stages.save_results import save_results

CSV = "part-00000.csv"
BLANKS = " \t\r\n\v\f\0\u00a0\u1680\u2000\u200b\u200f\u2028\u202e\u2800\u3000\u3164\ufeff\u00ad\u0301'\""
SIGNS = "=+-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b"
HARD = [
    *("x;=cmd|calc!A0;y", "x;'=y", 'x;"=y"', "a|@SUM(A1)", "a\n=b", "a\r+b", "a\t-b", "'quoted'", "''", "a;'b';c", "'"),
    *(f"{blank}{sign}1" for blank in ("", *BLANKS) for sign in SIGNS),
    *("", "Apple", "a=b", "a;b", "a, -b", "Training/Apple 1/0_100.jpg", "Pomme d'été", "-", "7", "\ttab", "\rreturn"),
]


@settings(deadline=None)
@given(st.lists(st.text(st.sampled_from(BLANKS + SIGNS + ";|,aé7/")) | st.text() | st.sampled_from(HARD)))
def test_every_text_comes_back(texts: list[str]) -> None:
    plain = pa.array(texts, pa.string())
    assert unguarded(guarded(plain)).equals(plain)


@pytest.mark.parametrize("separator", [",", ";", "|", "\t"])
def test_no_cell_begins_like_a_formula_whatever_separates(separator: str) -> None:
    lines = io.BytesIO()
    texts = guarded(pa.array(HARD))
    pa.csv.write_csv(pa.table({"path": texts, "label": texts, "pc_1": [0.5] * len(texts)}), lines)
    cells = csv.reader(io.StringIO(lines.getvalue().decode(), newline=""), delimiter=separator)
    begins = [_seen(cell)[:1] for line in cells for cell in line]
    assert begins
    assert not set(begins) & set("=+-@"), begins


def test_what_needs_no_apostrophe_gets_none() -> None:
    texts = pa.array(["Apple", "a=b", "a;b", "Pomme d'été", "Été", "a, -b", "Training/a/1.jpg", "", None])
    assert guarded(texts).equals(texts)


def test_a_search_for_an_erased_path_finds_it_as_the_csv_has_it(tmp_path: Path) -> None:
    for number, name in enumerate(("a/x;=1.jpg", "'a/1;'2.jpg", '=a/"1".jpg')):
        save_results([_rows(name)], tmp_path / f"p{number}", tmp_path / f"c{number}" / CSV, components=1)
        file = tmp_path / f"c{number}" / CSV
        assert Search([name], lambda _: ()).is_in(file), name
        assert holds_erased_paths(file, partial(pc.equal, pa.scalar(name))), name


def _rows(path: str) -> pa.Table:
    return pa.Table.from_pylist([{"path": path, "split": "all", "label": "a", "pca": [1.0]}], schema=projected(1))


def _seen(cell: str) -> str:
    """A cell as a spreadsheet reads it: an apostrophe makes it text, and blanks before a formula are passed over."""
    text = unicodedata.normalize("NFKC", cell)
    return text.lstrip(BLANKS.replace("'", "").replace('"', "").replace("\u3164", "") + "\u1160")
