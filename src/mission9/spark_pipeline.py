"""A run on Spark DataFrames, for notebooks: load, extract, project, save."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from mission9 import pca
from mission9.config import RunConfig
from mission9.dataframes import image_table, scores_table
from mission9.errors import ConfigError, InputError, OutputError, TooManyRejects
from mission9.output.csv_scores import csv_file
from mission9.output.layout import REPORT, scores_folder
from mission9.output.local import Output
from mission9.output.open import output_at
from mission9.pca import Moments, PCAModel
from mission9.privacy.policy import enforce_policy
from mission9.runners.spark import partition_number
from mission9.runners.spark_session import find_or_start_session, parallelism, stop_session
from mission9.schema import FEATURES, LISTING, OUTCOME, projected, vectors
from mission9.sources import find_root
from mission9.sources.list_images import list_images
from mission9.sources.listing import Listing, ListingCounts, fitting_split
from mission9.stages.fit_pca import MAX_PARTIALS
from mission9.stages.infer_features import infer_features
from mission9.stages.make_extraction import make_extraction, resolve_engine
from mission9.stages.project import project_batch
from mission9.stages.save_results import save_results
from mission9.storage.s3.address import address_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Batches = Iterator[pa.RecordBatch]

# Extraction has this many tasks for each task that runs at a time, so that none ends long after the others.
_TASKS_A_WORKER = 4


class SparkImagePipeline:
    """The steps of a run: `load_images` -> `extract_features` -> `apply_pca` -> `save_pca_results`.

    The pipeline uses the active Spark session or creates one. `close` (or the end of `with`) stops the session only if
    the pipeline created it. Settings are those of `RunConfig`: `SparkImagePipeline(weights="demo")`.

    Raises:
        UsageError: a setting is invalid.
        SetupError: the machine lacks a requirement.
    """

    def __init__(self, config: RunConfig | None = None, **settings: Any) -> None:
        if config is not None and (settings or not isinstance(config, RunConfig)):
            raise ConfigError("give a RunConfig, or its settings by name: SparkImagePipeline(weights='demo')")
        self.config = config or RunConfig(**settings)
        resolve_engine(self.config)  # reports impossible settings before a session starts
        self.spark, self._is_ours = find_or_start_session(self.config)
        self._kept: list[DataFrame] = []

    def load_images(self, path: str | Path) -> DataFrame:
        """List the images below a folder without reading them, a row each: root, path, split, label, bytes, modified.

        `path` is any input of a run.

        Raises:
            ConfigError, InputError: the location cannot hold images, or holds none.
            PolicyError: a bucket violates the policy.
        """
        place = RunConfig(input=path).input
        enforce_policy(self.config.model_copy(update={"input": place}))
        root = find_root(place)
        listing, schema = Listing.of(self.config), pa.schema([("root", pa.string()), *LISTING])

        def list_(_: Batches) -> Batches:
            for rows in list_images(root, ListingCounts(), listing):
                yield pa.record_batch([pa.repeat(root, len(rows)), *rows.columns], schema=schema)

        # For an equal plan, Spark reuses cached rows, even if the folder has changed since: make every plan unique.
        number = uuid.uuid4().int >> 66
        rows = self.spark.range(number, number + 1, 1, 1).mapInArrow(list_, _ddl(schema))
        listed = rows.persist()  # so that Spark lists the folder only once, for the count
        self._kept.append(listed)
        tasks = min(_TASKS_A_WORKER * parallelism(self.spark), max(1, listed.count()))
        return listed.repartition(tasks)

    def extract_features(self, df: DataFrame, root: str | Path | None = None) -> DataFrame:
        """Extract a row for each image: its 1280 `features`, or `stage`, `reason` and `message` of its rejection.

        The DataFrame is from `load_images`, or any with `path` and `content` (Spark's `binaryFile`). Its own columns
        `label` and `split` decide. Spark casts a label of any simple type to text (1, 0.5, true, 2026-01-31); null and
        NaN are not labels, and such an image is rejected. A split is Training, Validation, Test or all, or the name of
        such a folder; null means all. If a column is missing, paths decide as in `load_images` of the folder `root`, by
        default the folder that all paths share. Spark caches computed rows until `close`.

        Raises:
            InputError: columns are missing or of an unsupported type, or paths are not below `root`.
            ConfigError: the settings ask for int8.
        """
        table, rule = image_table(df, root, self.config.label_level)
        extraction = make_extraction(self.config)
        if extraction.engine.precision == "int8":
            raise ConfigError("int8 is calibrated on the images first, which only a whole run does: mission9 run")

        def extract(batches: Batches) -> Batches:
            return infer_features((row for batch in batches for row in rule.rows(batch)), extraction)

        features = table.mapInArrow(extract, _ddl(OUTCOME)).persist()
        self._kept.append(features)
        return features

    def apply_pca(self, df: DataFrame, n_components: int | float = 50) -> tuple[DataFrame, PCAModel]:
        """Fit a PCA on the Training images (on all if there are no splits); project every image that has features.

        Returns:
            A DataFrame of path, split, label and `pca` (a list of numbers), and the model.

        Raises:
            ConfigError: the number of components is not possible.
            InputError: columns are missing or of an unsupported type, or an image with features has no label.
            TooManyRejects: more images were rejected than `max_reject_rate` allows.
        """
        table, _ = scores_table(df, "features", "reason")
        fitting = self._check_counts(table)
        rows = table.where("features is not null").select("path", "split", "label", "features")
        # Spark has computed and cached the features by now: fewer tasks cost nothing, and send fewer partial results.
        chosen = rows.where(rows.split == fitting).select("features").coalesce(MAX_PARTIALS)
        partials = chosen.mapInArrow(_take_moments, "moments binary").collect()
        moments = reduce(Moments.merge, (Moments.from_bytes(bytes(row.moments)) for row in partials))
        model = pca.fit(moments, n_components)

        sent = model.without_moments()

        def to_scores(batches: Batches) -> Batches:
            return (project_batch(batch, sent).cast(_SCORES) for batch in batches)

        return rows.mapInArrow(to_scores, _ddl(_SCORES)), model

    def save_pca_results(self, df: DataFrame, output: str | Path) -> None:
        """Write the result of `apply_pca` as <split>_pca/label=.../ and <split>_pca_csv/ below the folder `output`.

        Raises:
            InputError: columns are missing or of an unsupported type, or there are no rows.
            ConfigError, OutputError: the folder cannot be used.
        """
        if self.config.pseudonymise or self.config.encrypt_key:
            raise ConfigError("pseudonyms and encrypted tables are made by whole runs only: mission9 run")
        place = RunConfig(output=output).output
        if address_of(place):
            raise OutputError("rows of a DataFrame are saved in a folder: give one, or df.write.parquet('s3a://...')")
        table, splits = scores_table(df, "pca")
        if not splits:
            raise InputError("there are no rows to save: give what apply_pca returned")
        with output_at(place).open(overwrite=self.config.overwrite) as folder:
            if (folder.root / REPORT).exists():
                raise OutputError(f"{place} holds the result of a run; give another folder")
            for split in splits:
                self._save_split(table.where(table.split == split), split, folder)
            folder.publish()

    def _save_split(self, df: DataFrame, split: str, place: Output) -> None:
        chunks = place.state / f"chunks_{split}"
        chunks.mkdir()

        def write(batches: Batches) -> Batches:
            file = chunks / uuid.uuid4().hex  # a retried task writes two files, and reports only one
            with pq.ParquetWriter(file, _SCORES) as writer:
                for batch in batches:
                    writer.write_batch(batch.select(_SCORES.names).cast(_SCORES))
            yield pa.record_batch([[partition_number()], [str(file)]], ["number", "file"])

        written = sorted(df.orderBy("path").mapInArrow(write, "number long, file string").collect())
        tables = (pq.read_table(row.file) for row in written)
        components = len(df.select("pca").take(1)[0].pca)
        parquet, csv = place.work / scores_folder(split), place.work / csv_file(split)
        fixed = (table.cast(projected(components)) for table in tables)
        save_results(fixed, parquet, csv, components=components)
        shutil.rmtree(chunks)

    def _check_counts(self, df: DataFrame) -> str:
        """Compute every image, check the labels and the number of rejects, and return the split to fit on."""
        counts = df.groupBy("split").agg({"*": "count", "features": "count", "label": "count"}).collect()
        listed = sum(row["count(1)"] for row in counts)
        if unlabelled := listed - sum(row["count(label)"] for row in counts):
            raise InputError(
                f"{unlabelled:,} of {listed:,} rows have no label: fill the column label, or drop the rows"
            )
        featured = {row["split"]: row["count(features)"] for row in counts}
        rejected = listed - sum(featured.values())
        if rejected > self.config.max_reject_rate * listed:
            raise TooManyRejects(
                f"{rejected:,} of {listed:,} images were rejected, at most {self.config.max_reject_rate:.1%} may be "
                "(max_reject_rate); see the columns reason and message where features is null"
            )
        return fitting_split(featured)

    def close(self) -> None:
        """Release the cached rows, and stop the session if this pipeline created it."""
        for df in self._kept:
            df.unpersist()
        self._kept.clear()
        if self._is_ours:
            stop_session(self.spark)
            self._is_ours = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_SCORES = pa.schema(
    [("path", pa.string()), ("split", pa.string()), ("label", pa.string()), ("pca", pa.list_(pa.float32()))]
)

_SPARK_TYPES = {
    pa.string(): "string",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.list_(pa.float32()): "array<float>",
}


def _ddl(schema: pa.Schema) -> str:
    """An Arrow schema as Spark DDL."""
    return ", ".join(f"{field.name} {_SPARK_TYPES[field.type]}" for field in schema)


def _take_moments(batches: Batches) -> Batches:
    moments = pca.moments_of((vectors(batch["features"]) for batch in batches), FEATURES)
    yield pa.record_batch([pa.array([moments.to_bytes()], pa.binary())], ["moments"])
