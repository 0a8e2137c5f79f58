"""The output folder, and the files in it.

folder       where things lie in it, and how finished tables appear
open_output  who may write it, and what a killed run left in it
shards       committed shards: features, rejects and a marker
tables       Parquet files of our own
state_files  small files of its state, in a folder or a bucket
page_file    `report.html`: of which result it is, and whether it is whole
"""
