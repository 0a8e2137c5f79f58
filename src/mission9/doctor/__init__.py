"""Look at this machine and its settings for what would keep a run from going well.

finding  one thing that was looked at, and what to do about it
checks   what is looked at: settings, packages, disks, weights, GPU
buckets  what of buckets
"""
