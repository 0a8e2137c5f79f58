"""`from src.feature_extractor import MobileNetV2Extractor`."""

from mission9.feature_extractor import MobileNetV2Extractor

__all__ = ["MobileNetV2Extractor"]
