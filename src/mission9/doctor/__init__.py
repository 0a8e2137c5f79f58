"""Check this machine and the settings for problems that would stop a run.

finding  the outcome of one check, and its remedy
checks   checks of settings, packages, disks, weights and GPU
buckets  checks of buckets
"""
