"""A result in a bucket.

output   worked on in a mirror, shown by one pointer
mirror   the folders in which a prefix is worked on, or read
shards   shards, committed by workers that see no more than the bucket, and brought here
results  results and models of a bucket, brought here to be read
"""
