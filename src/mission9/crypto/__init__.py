"""Keys, encrypted tables and pseudonyms.

keys        user-supplied keys, which are never logged
parquet     Parquet files encrypted as a whole
pseudonyms  paths of images -> pseudonyms
"""
