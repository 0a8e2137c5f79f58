"""Convert users' DataFrames of images to rows of path, split and label, as text."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from mission9.errors import InputError
from mission9.schema import NO_SPLIT, SPLITS
from mission9.sources.base import Root
from mission9.sources.layout import Layout, split_named
from mission9.stages.prepare_images import ImageRow

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

_START = re.compile(r"[a-zA-Z][\w+.-]*:(?://(?P<host>[^/]*))?")


@dataclass(frozen=True)
class PathRule:
    """A rule for the split and label of an image by its path, if its row has none; `root` is the dataset's folder.

    As in a listing, the first folder below `root` may name a split, and `label_level` selects the folder of the label.
    """

    root: str = ""
    label_level: int | None = None

    def split_and_label(self, path: str, root: str) -> tuple[str, str]:
        """The split and label of a path, relative to a `root` of its own or below the rule's."""
        below = path if root else path.removeprefix(self.root)
        folders = [name for name in below.split("/")[:-1] if name]
        split = split_named(folders[0]) if folders else None
        layout = Layout(splits=((folders[0], split),) if split else (), label_level=self.label_level)
        top = posixpath.basename((root or self.root).rstrip("/"))
        return layout.split_of(folders), layout.label_of(folders, top)

    def rows(self, batch: pa.RecordBatch) -> Iterator[ImageRow]:
        """The images of a batch from `image_table`; an image without a label gets an empty one."""
        for row in batch.to_pylist():
            path, root = row["path"] or "", row.get("root") or ""
            split, label = self.split_and_label(path, root)
            if "split" in row:
                split = _as_split(row["split"])
            if "label" in row:
                label = row["label"] or ""
            content = (row["content"] or b"") if "content" in row else None
            yield ImageRow(path, split, label, row.get("bytes") or len(content or b""), Root(root), content)


def image_table(df: DataFrame, root: str | Path | None, label_level: int | None = None) -> tuple[DataFrame, PathRule]:
    """Select the columns that extraction needs, and the rule for missing splits and labels.

    The DataFrame's own columns `split` and `label` decide, as text. If one is missing, the paths determine it: for rows
    with `content`, their part below `root`, by default the folder that all of them share.

    Raises:
        InputError: columns are missing or of an unsupported type, or paths are not below `root`.
    """
    source = "content" if "content" in _columns(df) else "root"
    require(df, "path", source)
    _check_type(df, "path", "string")
    _check_type(df, source, "binary" if source == "content" else "string")
    there = _columns(df)
    chosen = [name for name in ("path", "root", "bytes", "content", "split", "label") if name in there]
    if source == "content":
        chosen = [name for name in chosen if name not in ("root", "bytes")]
    is_told = {"split", "label"} <= set(chosen) or source == "root"
    rule = PathRule("" if is_told else _dataset(df, root), label_level)
    return df.select(*(_column(df, name).alias(name) for name in chosen)), rule


def scores_table(df: DataFrame, *columns: str) -> tuple[DataFrame, list[str]]:
    """The columns `path`, `split` and `label` of a DataFrame as text, `columns` unchanged, and the list of its splits.

    Raises:
        InputError: columns are missing or of an unsupported type, or a split is unknown.
    """
    require(df, "path", "split", "label", *columns)
    table = df.select(*(_column(df, name).alias(name) for name in ("path", "split", "label", *columns)))
    splits = {row.split: _as_split(row.split) for row in table.select("split").distinct().collect()}
    return _with_splits(table, splits), sorted(set(splits.values()))


def require(df: DataFrame, *columns: str) -> None:
    """Refuse a DataFrame that lacks columns; as in Spark, their case does not matter.

    Raises:
        InputError: with the missing columns.
    """
    there = _columns(df)
    if missing := [column for column in columns if column not in there]:
        raise InputError(f"the DataFrame lacks {', '.join(missing)}; it has {', '.join(df.columns)}")


def _columns(df: DataFrame) -> Mapping[str, str]:
    """The names of columns in lower case, with their spelling in the DataFrame.

    Raises:
        InputError: two names differ only in case.
    """
    found: dict[str, str] = {}
    for name in df.columns:
        if name.lower() in found and name.lower() in ("path", "split", "label", "content", "root"):
            raise InputError(f"the DataFrame has two columns {name.lower()}: drop one, or rename it")
        found[name.lower()] = name
    return found


def _column(df: DataFrame, name: str) -> Column:
    """A column by its name; Spark casts split and label to text, with NaN as null.

    Raises:
        InputError: split or label is of a type that holds several values, or bytes.
    """
    from pyspark.sql import functions as f
    from pyspark.sql.types import AtomicType, BinaryType, DoubleType, FloatType, NullType

    written = _columns(df)[name]
    column, kind = f.col(f"`{written}`"), df.schema[written].dataType
    if name not in ("split", "label"):
        return column
    if not isinstance(kind, AtomicType | NullType) or isinstance(kind, BinaryType):
        raise InputError(
            f"the column {written} is of type {kind.simpleString()}: give text, numbers, booleans or dates"
        )
    if isinstance(kind, FloatType | DoubleType):
        column = f.when(~f.isnan(column), column)
    return column.cast("string")


def _check_type(df: DataFrame, name: str, wanted: str) -> None:
    written = _columns(df)[name]
    kind = df.schema[written].dataType.simpleString()
    if kind != wanted:
        raise InputError(f"the column {written} is of type {kind}, not {wanted}")


def _with_splits(table: DataFrame, splits: Mapping[str | None, str]) -> DataFrame:
    """The same rows with mission9's names of their splits.

    Raises:
        InputError: a split is unknown.
    """
    from pyspark.sql import functions as f

    if unknown := sorted(split for split in splits.values() if split not in SPLITS):
        raise InputError(f"the column split holds {', '.join(unknown)}: give {', '.join(SPLITS)}, or null for the last")
    other = {split: name for split, name in splits.items() if split != name}
    named = reduce(
        lambda column, split: f.when(f.col("split").eqNullSafe(f.lit(split)), other[split]).otherwise(column),
        other,
        f.col("split"),
    )
    return table.withColumn("split", named)


def _as_split(value: str | None) -> str:
    if value is None or value == NO_SPLIT:
        return NO_SPLIT
    return split_named(value) or value


def _dataset(df: DataFrame, root: str | Path | None) -> str:
    """The folder of the dataset, as spelled at the beginning of a DataFrame's paths.

    Raises:
        InputError: a path is not below `root`.
    """
    from pyspark.sql import functions as f

    path = _column(df, "path")
    ends = df.agg(f.min(path).alias("first"), f.max(path).alias("last")).collect()[0]
    if ends.first is None:
        return ""
    # All paths share the folders that the first and the last path share.
    folders = (ends.first.split("/")[:-1], ends.last.split("/")[:-1])
    shared = [name for name, _ in takewhile(lambda pair: pair[0] == pair[1], zip(*folders, strict=False))]
    below = 0 if root is None else _folders_below(str(root), "/".join(shared))
    while below > 0:
        below -= bool(shared.pop())  # an empty name does not count as a folder
    if below < 0:
        raise InputError(f"not all paths are below {root}: {ends.first} to {ends.last}; give the folder that all share")
    return "/".join(shared)


def _folders_below(root: str, place: str) -> int:
    """The number of folders from a root down to a place, -1 if it is not below the root. A path matches any host."""
    is_path = _START.match(root) is None
    wanted, found = _names(os.path.abspath(root) if is_path else root), _names(place)
    if is_path:
        wanted, found = wanted[1:], found[1:]
    return len(found) - len(wanted) if found[: len(wanted)] == wanted else -1


def _names(place: str) -> list[str]:
    """The host or bucket of a place (empty for a path), then the names of its folders."""
    found = _START.match(place)
    rest = place[found.end() :] if found else place
    return [(found and found["host"]) or "", *(name for name in rest.split("/") if name)]
