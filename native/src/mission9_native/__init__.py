"""Pillow's bilinear resize in C, about twice as fast, for mission9, which does without where this is missing."""

from mission9_native._resize import resize

__all__ = ["resize"]
