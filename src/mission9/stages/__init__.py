"""The stages of a run, in order: each a function over record batches or files, and none knows the next.

list_images     folder -> rows: path, split, label, size, modification time
plan_shards     rows -> a plan of shards, a few seconds of work each
extract_shard   shard -> features and rejects, committed         (on the workers)
    prepare_images  rows -> pixels or a reason, read ahead
    read_bytes      path -> bytes, or a reason
    decode_apart    bytes -> pixels or a reason, in a child process
    decode_image    bytes -> RGB picture, or a reason
    infer_features  rows -> outcomes: features or a reason
fit_pca         Training features -> moments -> PCA model        (moments on the workers)
project         features -> scores                               (on the workers)
save_results    scores -> Parquet by label, one CSV
report          counts that must add up -> run.json
verify_output   output folder -> what is wrong in it
"""
