"""Verify the tables of scores of a result against its features, part by part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mission9.output.csv_scores import csv_columns, csv_file, read_csv
from mission9.output.csv_text import guarded
from mission9.output.layout import csv_folder, scores_folder
from mission9.output.local import Output
from mission9.output.tables import read_table
from mission9.pca import PCAModel
from mission9.schema import is_as_written, projected, vectors
from mission9.storage.local.files import files_below, files_in
from mission9.storage.local.names import label_of_folder

# Scores are stored in float32. This is their tolerance, relative to the longest vector of scores of a part.
_TOLERANCE = 1e-5


class ScoresCheck:
    """A check of the tables of scores, read along with the features: the CSV in order, Parquet label by label."""

    def __init__(self, output: Output, *, has_csv: bool) -> None:
        self._output, self._has_csv = output, has_csv
        self._lines: dict[str, _Lines] = {}
        self._rows: Counter[str] = Counter()
        self._folders: dict[str, dict[str, Path]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for lines in self._lines.values():
            lines.close()

    def check(self, split: str, part: pa.Table, model: PCAModel) -> Iterator[str]:
        """Yield the differences between the stored scores of a part's images and those computed from its features."""
        wanted = model.transform(vectors(part["features"]))
        tolerance = _TOLERANCE * float(np.linalg.norm(wanted, axis=1).max() + 1)
        if self._has_csv:
            yield from self._check_csv(split, part, wanted, tolerance)
        for label in pc.unique(part["label"]).to_pylist():
            chosen = pc.equal(part["label"], label)
            paths = part.filter(chosen)["path"]
            yield from self._check_label(split, label, paths, wanted[chosen.to_numpy()], tolerance)

    def _check_csv(self, split: str, part: pa.Table, wanted: NDArray[Any], tolerance: float) -> Iterator[str]:
        name = csv_folder(split)
        lines = self._lines.setdefault(split, _Lines(self._output.root / csv_file(split), wanted.shape[1]))
        found = lines.take(len(part))
        texts = [part[name].combine_chunks() for name in ("path", "label")]
        plain = found is not None and all(found[n].combine_chunks().equals(texts[n]) for n in (0, 1))
        if found is None or not (plain or all(found[n].combine_chunks().equals(guarded(texts[n])) for n in (0, 1))):
            yield f"the rows of {name} are not those of the features"
        elif not _close(np.column_stack([column.to_numpy() for column in found.columns[2:]]), wanted, tolerance):
            yield f"the scores in {name} are not those of the features"

    def _check_label(
        self, split: str, label: str, paths: pa.ChunkedArray, wanted: NDArray[Any], tolerance: float
    ) -> Iterator[str]:
        folder = self._folder_of(split, label)
        tables = [_scores_of(file, wanted.shape[1]) for file in sorted(files_in(folder) if folder else [])]
        found = pa.concat_tables(tables).combine_chunks() if tables else None
        places = None if found is None else pc.index_in(paths, value_set=found["path"].combine_chunks())
        if found is None or places is None or places.null_count:
            yield f"{folder or f'{scores_folder(split)}/label={label}'} lacks images of {split}"
            return
        self._rows[split] += len(paths)
        if not _close(vectors(found["pca"])[places.to_numpy()], wanted, tolerance):
            yield f"the scores in {folder} are not those of the features"

    def _folder_of(self, split: str, label: str) -> Path | None:
        """The folder of a label's scores, if any; escaped letters in its name distinguish it from another label's."""
        top = self._output.root / scores_folder(split)
        if split not in self._folders:
            folders = files_in(top) if top.is_dir() else ()
            self._folders[split] = {label_of_folder(folder.name): folder for folder in folders}
        return self._folders[split].get(label)

    def left_over(self, seen: Counter[tuple[str, str]]) -> Iterator[str]:
        """Yield the tables with rows of scores that belong to no image."""
        for split, lines in self._lines.items():
            if lines.take(1) is not None:
                yield f"{csv_folder(split)} holds rows of no image"
            folder = self._output.root / scores_folder(split)
            files = files_below(folder) if folder.exists() else ()
            rows = sum(len(_scores_of(file, lines.components)) for file in files)
            if rows != seen[split, "featured"]:
                yield f"{scores_folder(split)} holds {rows:,} rows for {seen[split, 'featured']:,} images"


class _Lines:
    """The rows of a CSV, read in blocks of any number of rows."""

    def __init__(self, file: Path, components: int) -> None:
        self.components = components
        self._open = ExitStack()
        try:
            self._reader = self._open.enter_context(read_csv(file, csv_columns(components)))
        except (pa.ArrowException, KeyError, OSError):  # its checksum reports it
            self._reader = None
        self._waiting: pa.Table | None = None

    def take(self, count: int) -> pa.Table | None:
        """The next `count` rows; None if fewer are left."""
        while self._reader is not None and (self._waiting is None or len(self._waiting) < count):
            try:
                batch = pa.Table.from_batches([self._reader.read_next_batch()])
            except (StopIteration, pa.ArrowInvalid):
                break
            self._waiting = batch if self._waiting is None else pa.concat_tables([self._waiting, batch])
        if self._waiting is None or len(self._waiting) < count:
            return None
        taken, self._waiting = self._waiting.slice(0, count), self._waiting.slice(count)
        return taken

    def close(self) -> None:
        self._open.close()


def _scores_of(file: Path, components: int) -> pa.Table:
    schema = projected(components)
    schema = pa.schema([schema.field("path"), schema.field("pca")])
    try:
        found = read_table(file, columns=schema.names)
    except (pa.ArrowException, OSError):
        found = schema.empty_table()
    return found if is_as_written(found, schema) else schema.empty_table()  # its checksum reports it


def _close(found: NDArray[Any], wanted: NDArray[Any], tolerance: float) -> bool:
    return found.shape == wanted.shape and bool(np.abs(found - wanted).max() <= tolerance)
