"""Files on disks that may be flaky, full, or hold untrusted data.

files      files that appear whole; retried system calls
lock       a file that one process at a time holds
scratch    temporary folders, swept after killed processes
names      non-UTF-8 names as text, labels as folder names
untrusted  size-limited reads of untrusted files, without running code
errors     error translation: an OSError -> one sentence with its remedy
"""
