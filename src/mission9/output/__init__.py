"""The output of a run, and its files.

layout       file names
local        an output in a folder, and its atomic publication
open_local   the write lock of a folder, and recovery after a killed run
open         outputs and results by user-supplied names
bucket       an output in a bucket
shards       committed shards: features, rejects and a marker
tables       mission9's Parquet files
csv_scores   the CSV of scores: place, writer, reader
csv_text     CSV texts, guarded against formulas
run_report   counts that must add up -> run.json
report_file  `report.html`: the result that it belongs to, and its integrity
audit_log    a hash-chained log of the operations on an output
tombstones   erased images, by keyed hashes of their paths: no later run includes them
"""
