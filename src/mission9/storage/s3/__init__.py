"""Objects in a bucket that speaks S3.

address       s3://bucket/key, and paths below it
environment   endpoint, region and credentials from the environment
client        one client per process and bucket, and its retries
profile       credentials of a profile in ~/.aws
errors        error translation: a server's answer -> one line with the address and the remedy
objects       read, write, list, copy and delete objects
listing       the objects below a prefix, page by page, or one level of them
raw_keys      keys that obstore cannot address, through boto3
range_reader  an object as a file that is read in ranges
lease         the write lock of a prefix, which expires after its holder dies
admin_client  boto3's client, for bucket settings and object versions
versions      object versions kept by a bucket, and their permanent deletion

A run without an s3:// address imports only `address`, and neither obstore nor boto3.
"""
