"""Bytes -> pixels, in child processes that a hostile file may end.

decode      bytes -> an RGB picture, or the reason why not
png_chunks  what of a PNG is not needed
worker      the child
isolated    its parent: pixels or a reason for each image
metadata    what an image's metadata tell of people
"""
