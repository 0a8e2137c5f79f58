"""Keys, and what is made with them.

keys        the keys, which are never told
parquet     Parquet files encrypted as a whole
pseudonyms  paths of images -> pseudonyms
"""
