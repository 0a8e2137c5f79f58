"""Search files for erased names: in every byte, and in every column of Parquet files.

Names known only by their hashes are searched for in the columns of paths.
"""

from __future__ import annotations

import html
import json
import mmap
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mission9.output.csv_scores import TEXTS, read_csv
from mission9.output.csv_text import guarded_text, unguarded
from mission9.output.tables import opened
from mission9.storage.local.files import open_to_read

_WORD = 8  # bytes compared at a time
_BLOCK = 1 << 24

# Files whose columns were searched, or that hold only numbers.
_BINARY = (".parquet", ".safetensors", ".bin")

PATH = "path"

_IN_WORDS = re.compile(rb"[A-Za-z0-9+/=_.-]")


class Search:
    """A search for names; `kept_with` returns the kept names that contain a name, such as "b/a/1.jpg" for "a/1.jpg"."""

    def __init__(self, names: Iterable[str], kept_with: Callable[[str], Iterable[str]]) -> None:
        self._names = sorted(set(names))
        self._kept_with = kept_with
        self._forms = {form: name for name in self._names for form in _forms(name)}
        self._kept: dict[str, set[bytes]] = {}

    def is_in(self, file: Path) -> bool:
        """Return True if a file contains one of the names."""
        if file.suffix == ".parquet" and self._is_in_columns(file):
            return True
        with open_to_read(file) as content:
            if not file.stat().st_size:
                return False
            with mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as data:
                hits = self._hits(data, is_text=file.suffix not in _BINARY)
                return any(not self._is_of_another(data, at, form) for at, form in hits)

    def _is_in_columns(self, file: Path) -> bool:
        wanted = pa.array(self._names, pa.string())
        with opened(file) as parquet:
            schema = parquet.schema_arrow
            texts = [field.name for field in schema if pa.types.is_string(field.type)]
            for number in range(parquet.num_row_groups):
                group = parquet.read_row_group(number, columns=texts)
                if any(pc.any(pc.is_in(column, value_set=wanted)).as_py() for column in group.columns):
                    return True
        return False

    @cached_property
    def _heads(self) -> tuple[np.ndarray, dict[int, list[bytes]]]:
        """The first bytes of all forms as numbers; forms by length. Short forms are searched for one by one."""
        long = [form for form in self._forms if len(form) >= _WORD]
        heads = np.unique(np.array([int.from_bytes(form[:_WORD], "little") for form in long], np.uint64))
        by_length: dict[int, list[bytes]] = {}
        for form in long:
            by_length.setdefault(len(form), []).append(form)
        return heads, by_length

    def _hits(self, data: mmap.mmap, *, is_text: bool) -> Iterator[tuple[int, bytes]]:
        """The positions of forms of names, in time independent of their number.

        Short forms occur by chance among numbers, and within other words: they count in texts, as whole words.
        """
        for form in self._forms if is_text else ():
            at = data.find(form) if len(form) < _WORD else -1
            while at >= 0:
                if not (
                    _IN_WORDS.match(data[max(at - 1, 0) : at])
                    or _IN_WORDS.match(data[at + len(form) : at + len(form) + 1])
                ):
                    yield at, form
                at = data.find(form, at + 1)
        heads, by_length = self._heads
        forms = {length: set(found) for length, found in by_length.items()}
        for start in range(0, len(data), _BLOCK):
            block = data[start : start + _BLOCK + _WORD - 1]
            for offset in range(_WORD if len(heads) else 0):
                count = (len(block) - offset) // _WORD
                words = np.frombuffer(block, "<u8", max(count, 0), offset if count > 0 else 0)
                for place in np.flatnonzero(np.isin(words, heads)).tolist():
                    at = start + offset + place * _WORD
                    for length, some in forms.items():
                        if (form := data[at : at + length]) in some:
                            yield at, form

    def _is_of_another(self, data: mmap.mmap, at: int, form: bytes) -> bool:
        """Return True if a match is part of a kept name."""
        name = self._forms[form]
        if name not in self._kept:
            self._kept[name] = {kept for other in self._kept_with(name) for kept in _forms(other)}
        for kept in self._kept[name]:
            inside = kept.find(form)
            while inside >= 0:
                if at >= inside and data[at - inside : at - inside + len(kept)] == kept:
                    return True
                inside = kept.find(form, inside + 1)
        return False


def holds_erased_paths(file: Path, is_erased: Callable[[pa.ChunkedArray | pa.Array], pa.Array]) -> bool:
    """Return True if a table's column of paths contains an image that is known only by its hash."""
    if file.suffix == ".parquet":
        with opened(file) as parquet:
            schema = parquet.schema_arrow
            if PATH not in schema.names or not pa.types.is_string(schema.field(PATH).type):
                return False
            groups = (parquet.read_row_group(number, [PATH])[PATH] for number in range(parquet.num_row_groups))
            return any(is_erased(paths).true_count for paths in groups)
    return file.suffix == ".csv" and any(is_erased(paths).true_count for paths in _paths_of_csv(file))


def _paths_of_csv(file: Path) -> Iterator[pa.Array]:
    """The paths in a CSV, as stored, and without the apostrophes that guard against formulas."""
    try:
        with read_csv(file, TEXTS, only=[PATH]) as batches:
            for batch in batches:
                yield batch[PATH]
                yield unguarded(batch[PATH])
    except (pa.ArrowException, KeyError):  # not a CSV of mission9
        return


def _forms(name: str) -> set[bytes]:
    """A name in its possible encodings: plain, JSON, HTML, scripts, URLs and CSV."""
    in_scripts = in_json = json.dumps(name, ensure_ascii=False)[1:-1]
    for character in "<>&":
        in_scripts = in_scripts.replace(character, f"\\u{ord(character):04x}")
    in_csv = (text.replace('"', '""') for text in (name, guarded_text(name)))
    others = (json.dumps(name)[1:-1], html.escape(name), quote(name), *in_csv)
    return {text.encode() for text in (name, in_json, in_scripts, *others)}
