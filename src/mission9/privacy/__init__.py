"""What keeps data where it may be, and its traces few; `erasure` takes images out again.

policy        where data may lie, looked at before a run touches it
pseudonyms    paths of images -> pseudonyms
encryption    Parquet files encrypted as a whole
secret_keys   the keys for both, which are never told
redact        texts from outside -> one line without secrets
audit_images  how many images carry metadata that tell of people
audit_log     what was done to an output, chained
"""
