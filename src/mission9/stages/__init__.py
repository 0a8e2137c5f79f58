"""The stages of a run, in order: each a function over record batches or files.

reuse           rows -> the shards that hold what came of them before
verify_content  rows -> those whose bytes are what they were
plan_shards     rows -> a plan of shards, a few seconds of work each
make_extraction settings -> engine and weights, for the workers
calibrate_int8  images -> the ranges of a network in int8
extract_shard   shard -> features and rejects, committed         (on the workers)
    prepare_images  rows -> pixels or a reason, read ahead
    infer_features  rows -> outcomes: features or a reason
collect_shards  committed shards -> the features of a result
compact_shards  many small shards -> few
fit_pca         Training features -> moments -> PCA model        (moments on the workers)
project         features -> scores                               (on the workers)
make_scores     scores -> all tables of them
save_results    scores of a split -> Parquet by label, one CSV
measure_fidelity  what a precision costs
"""
