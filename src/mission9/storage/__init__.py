"""Storage: folders and buckets, and one port for the files in both.

location    what users name -> a folder, a bucket's prefix, or a URL
file_store  files by their names below a place, wherever it is
retry       what fails for a passing reason, called again
cache       folders in the cache, each made whole and kept while it is read
local       files on disks
s3          objects in buckets
"""
