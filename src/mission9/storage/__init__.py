"""Storage: folders and buckets, and one port for the files in both.

location    a user-supplied place -> a folder, a bucket prefix, or a URL
file_store  files by name below a place, local or remote
retry       retries of transient failures
cache       cached copies of bucket contents, each complete and locked while read
local       files on disks
s3          objects in buckets
"""
