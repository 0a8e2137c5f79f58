"""`from src.spark_pipeline import SparkImagePipeline`."""

from mission9.spark_pipeline import SparkImagePipeline

__all__ = ["SparkImagePipeline"]
