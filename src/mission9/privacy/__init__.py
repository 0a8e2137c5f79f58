"""Keep data where it may be; `erasure` takes images out again.

policy          where data may lie, looked at before a run touches it
check           one thing that a policy asks for, and what was found
bucket_checks   whether a bucket is in the EU, encrypted, not public, and asks for TLS
metadata_audit  how many images carry metadata that tell of people
"""
