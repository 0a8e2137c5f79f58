"""Objects in a bucket that speaks S3.

address       s3://bucket/key, and what is below it
environment   where to and as whom, as the environment says
client        the one client of a process, and its retries
profile       credentials of a profile in ~/.aws
errors        what a server answers -> one line: which address, and what to do
objects       read, write, list, copy and delete objects
listing       what is below a prefix, page by page, or one level of it
raw_keys      keys that obstore cannot name, by boto3
range_reader  an object as a file that is read in pieces
lease         who may write to a prefix, which ends with whoever holds it
admin_client  boto3's client, for settings of buckets and versions of objects
versions      versions that a bucket keeps of objects, deleted for good

Nothing here but `address` is imported by a run that has no address, nor are obstore and boto3.
"""
