"""Erase images from a result, and from everything that it was made of.

ids          a file of ids; the images that plans list
selection    a request -> the paths of its images
rewrite      committed shards and plans without the erased rows
rebuild      the result without them: moments subtracted, the model refitted, all tables rewritten
source_files the image files themselves, or all versions of the objects
leftovers    every file of an output, in a folder or a bucket
search       a search of every file for erased names
receipt      a record of the erasure, with its entry in the audit log
erase        all steps in order

Every step is idempotent, and resumes if it is killed.
"""
