"""Data protection: where data may be stored. `erasure` removes images again.

policy          the policy on storage, checked before a run touches any data
check           one requirement of a policy, and its outcome
bucket_checks   checks that a bucket is in the EU, encrypted, not public, and requires TLS
metadata_audit  counts of images with personal metadata
"""
