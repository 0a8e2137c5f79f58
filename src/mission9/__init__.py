"""Folders of labelled images -> MobileNetV2 features and a compact PCA space, on Apache Spark."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mission9._package import __version__

if TYPE_CHECKING:
    from mission9.config import RunConfig
    from mission9.feature_extractor import MobileNetV2Extractor
    from mission9.pca import PCAModel
    from mission9.pipeline.run import run
    from mission9.results.evaluate import evaluate
    from mission9.results.export import to_sklearn, with_vectors
    from mission9.results.projector import Projector
    from mission9.results.reader import Results
    from mission9.spark_pipeline import SparkImagePipeline

__all__ = [
    "MobileNetV2Extractor",
    "PCAModel",
    "Projector",
    "Results",
    "RunConfig",
    "SparkImagePipeline",
    "__version__",
    "evaluate",
    "run",
    "to_sklearn",
    "with_vectors",
]

# Loaded on first access, so that `import mission9` imports neither torch nor pyspark.
_MODULES = {
    "MobileNetV2Extractor": "mission9.feature_extractor",
    "PCAModel": "mission9.pca",
    "Projector": "mission9.results.projector",
    "Results": "mission9.results.reader",
    "RunConfig": "mission9.config",
    "SparkImagePipeline": "mission9.spark_pipeline",
    "evaluate": "mission9.results.evaluate",
    "run": "mission9.pipeline.run",
    "to_sklearn": "mission9.results.export",
    "with_vectors": "mission9.results.export",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'mission9' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
