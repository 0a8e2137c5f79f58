"""The settings by which a worker turns images into features."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from mission9.models.engines.base import EngineSpec
from mission9.models.engines.int8 import Int8Network
from mission9.models.weights import Weights
from mission9.options import Decode, Preprocess

# Raise this if a change of the code gives other features for the same image.
FEATURES_VERSION = 3

# Images of a shard: a few seconds of work for a core, or for a GPU and the cores that decode for it.
SHARD_IMAGES = {"cpu": 256, "cuda": 8192}


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """The settings that travel to the workers; small, except for the weights' 9 MB.

    `int8` is the network in that precision; without it, the weights themselves are the network. `pixels` identifies
    the pixels that the driver's decoder gives (`decoding.pixels`).
    """

    engine: EngineSpec
    weights: Weights
    int8: Int8Network | None = None
    preprocess: Preprocess
    decode: Decode = "exact"
    max_pixels: int
    max_bytes: int
    pixels: str

    @property
    def shard_images(self) -> int:
        """The number of images in a shard of a few seconds."""
        return SHARD_IMAGES[self.engine.device]

    @property
    def is_exact(self) -> bool:
        """True if the features are those of the exact pixels, in float32."""
        return self.engine.precision == "float32" and self.decode == "exact"

    @property
    def fingerprint(self) -> str:
        """The identifier of the features that this extraction computes; each fingerprint has its own table."""
        facts = {
            "version": FEATURES_VERSION,
            "weights": self.weights.sha256,
            "preprocess": self.preprocess,
            "decode": self.decode,
            "pixels": self.pixels,
            "engine": self.engine.engine,
            "device": self.engine.device,
            "precision": self.engine.precision,
            "int8": self.int8.sha256 if self.int8 else None,
            # Other limits reject other images.
            "max_pixels": self.max_pixels,
            "max_bytes": self.max_bytes,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
