"""The output of a run, and the files in it.

layout       the names of its files
local        an output in a folder, and how finished tables appear
open_local   who may write it, and what a killed run left in it
open         outputs and results by the names that users give them
bucket       an output in a bucket
shards       committed shards: features, rejects and a marker
tables       Parquet files of our own
csv_text     texts of the CSV, of which none is a formula
run_report   counts that must add up -> run.json
report_file  `report.html`: of which result it is, and whether it is whole
audit_log    what was done to an output, chained
tombstones   which images are erased, by keyed hashes of their paths: no run takes them in again
"""
