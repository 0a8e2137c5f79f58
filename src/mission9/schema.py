"""The columns of every table that one stage passes to the next."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

FEATURES = 1280  # numbers per image, after the network's global average pooling

# The values of the column `split`; the last is for images outside the folders of splits.
SPLITS = (TRAINING, VALIDATION, TEST, NO_SPLIT) = ("Training", "Validation", "Test", "all")

# One row per file found under the input, in order of path. `modified` is in nanoseconds since 1970.
LISTING = pa.schema(
    [
        ("path", pa.string()),
        ("split", pa.string()),
        ("label", pa.string()),
        ("bytes", pa.int64()),
        ("modified", pa.int64()),
    ]
)

# A wrong clock may give a file a time after 2262 or before 1677, which tables cannot hold.
_LATEST = (1 << 63) - 1


def listed_time(nanoseconds: int) -> int:
    """Nanoseconds since 1970, clipped to the range of a listing."""
    return max(-_LATEST, min(nanoseconds, _LATEST))


# The listing of a run with, for each image, the shard that holds its outcome, and the part (also a shard) that holds it
# when the run is done.
PLAN = pa.schema([*LISTING, ("shard", pa.string()), ("part", pa.string())])

# A worker's outcome for each image: features, or the stage, reason and message of its rejection.
OUTCOME = pa.schema(
    [
        ("path", pa.string()),
        ("split", pa.string()),
        ("label", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("features", pa.list_(pa.float32())),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("message", pa.string()),
    ]
)

FEATURE_COLUMNS = ("path", "split", "label", "width", "height", "bytes", "sha256", "features")
FEATURES_TABLE = pa.schema(
    [OUTCOME.field(name) for name in FEATURE_COLUMNS[:-1]] + [pa.field("features", pa.list_(pa.float32(), FEATURES))]
)

REJECT_COLUMNS = ("path", "split", "label", "stage", "reason", "message", "bytes")
REJECTS_TABLE = pa.schema([OUTCOME.field(name) for name in REJECT_COLUMNS])


def projected(components: int) -> pa.Schema:
    """The schema of images in the PCA space: path, split, label and `components` scores."""
    keys = [OUTCOME.field(name) for name in ("path", "split", "label")]
    return pa.schema([*keys, pa.field("pca", pa.list_(pa.float32(), components))])


def is_as_written(table: pa.Table, schema: pa.Schema) -> bool:
    """True if a table, which others may have replaced, has the columns of `schema` and no nulls."""
    return bool(table.schema.equals(schema)) and not any(column.null_count for column in table.columns)


def vectors(column: pa.Array | pa.ChunkedArray) -> NDArray[np.float32]:
    """A column of equally long lists of numbers as an (n, d) array; without a copy if Arrow allows it."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return np.asarray(column.flatten().to_numpy(zero_copy_only=False)).reshape(len(column), -1)
