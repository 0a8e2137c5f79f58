"""Folders of labelled images -> MobileNetV2 features and a compact PCA space, on Apache Spark."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mission9.config import RunConfig
    from mission9.feature_extractor import MobileNetV2Extractor
    from mission9.pca import PCAModel
    from mission9.pipeline import run
    from mission9.spark_pipeline import SparkImagePipeline

__version__ = "0.1.0"

__all__ = ["MobileNetV2Extractor", "PCAModel", "RunConfig", "SparkImagePipeline", "__version__", "run"]

# Loaded when first asked for, so that `import mission9` costs neither torch nor pyspark.
_MODULES = {
    "MobileNetV2Extractor": "mission9.feature_extractor",
    "PCAModel": "mission9.pca",
    "RunConfig": "mission9.config",
    "SparkImagePipeline": "mission9.spark_pipeline",
    "run": "mission9.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'mission9' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
