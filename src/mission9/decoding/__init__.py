"""Decode bytes to pixels, in child processes that a hostile file may kill.

decode      bytes -> an RGB picture, or the reason for a reject
formats     bytes -> the parsers that may see them
png_chunks  removal of unneeded parts of a PNG
worker      the child process
isolated    its parent: pixels or a reason for each image
metadata    personal metadata in an image
"""
