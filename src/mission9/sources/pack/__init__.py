"""A pack as a source of images.

layout  the files of a pack: manifest, index and parts, and their columns
index   the rows of the index, and the lookup of a path
source  a path -> the image's bytes; pages that are read repeatedly are fetched as a whole
"""
