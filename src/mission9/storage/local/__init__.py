"""Files, on disks that falter, fill up, or hold what somebody else made.

files      files that appear whole; calls that are tried again
lock       a file that one process at a time holds
scratch    temporary folders, swept after processes that were killed
names      odd names as text, labels as folder names
untrusted  files of others, read up to a size, without running anything
errors     what the system says of a disk that fails -> one sentence
"""
