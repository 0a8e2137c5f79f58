"""A result in a bucket.

output   a result built in a local mirror, published by one pointer
mirror   local folders for the contents of a prefix
shards   shards, committed by workers to the bucket and downloaded to the driver
results  local copies of results and models in a bucket
"""
