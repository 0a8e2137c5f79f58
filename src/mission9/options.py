"""The possible values of settings, and default limits."""

from __future__ import annotations

from typing import Literal

Decode = Literal["exact", "fast"]
Device = Literal["auto", "cpu", "cuda"]
EngineName = Literal["auto", "torch", "openvino"]
PolicyName = Literal["eu", "none"]
Precision = Literal["float32", "bfloat16", "bf16", "float16", "int8"]
Preprocess = Literal["stretch", "crop"]
RunnerName = Literal["auto", "spark", "local"]
SplitsFrom = Literal["auto", "folders", "none"]

# Pillow's own limit against decompression bombs (Image.MAX_IMAGE_PIXELS): a quarter GiB of 24-bit pixels. Pillow
# refuses more than twice as many, whatever the setting.
MAX_PIXELS = 1024 * 1024 * 1024 // 4 // 3

MAX_BYTES = 256 * 1024 * 1024  # of an image file
