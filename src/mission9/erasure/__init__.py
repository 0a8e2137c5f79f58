"""Images out of a result, and out of all that it was made of.

ids          a file of ids; the images that plans list
selection    a request -> the paths of the images that it means
rewrite      committed shards and plans without the erased rows
rebuild      the result without them: moments subtracted, the model refitted, all tables written anew
source_files the image files themselves, or all versions of the objects
leftovers    what of it differs between folders and buckets
search       a search of every file for what must be gone
receipt      what was erased, and the record that vouches for it
erase        all of it in order

Every step ends in the same if it is killed and done again.
"""
