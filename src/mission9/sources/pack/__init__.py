"""A pack as a source of images.

layout  what a pack consists of: its manifest, index and parts, and their columns
index   the rows of the index, and what it says of one path
source  a path -> the image's bytes; pages that are read on are fetched as a whole
"""
