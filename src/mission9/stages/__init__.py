"""The stages of a run, in order: each a function over record batches or files.

reuse           rows -> the committed shards that hold their outcomes
verify_content  rows -> those with unchanged bytes
plan_shards     rows -> a plan of shards, a few seconds of work each
make_extraction settings -> engine and weights, for the workers
calibrate_int8  images -> the ranges of a network in int8
extract_shard   shard -> features and rejects, committed         (on the workers)
    prepare_images  rows -> pixels or a reason, read ahead
    infer_features  rows -> outcomes: features or a reason
collect_shards  committed shards -> the features of a result
compact_shards  many small shards -> few parts
fit_pca         Training features -> moments -> PCA model        (moments on the workers)
project         features -> scores                               (on the workers)
make_scores     scores -> all tables of scores
save_results    scores of a split -> Parquet by label, one CSV
measure_fidelity  features that are not exact -> their similarity to the exact ones
"""
