"""Images, weights and results in a bucket that speaks S3.

address       s3://bucket/key, and what is below it
environment   where to and as whom, as the environment says
client        the one client of a process, and its retries
profile       credentials of a profile in ~/.aws
told          what a server answers -> one line: which address, and what to do
objects       read, write, list, copy and delete objects
listings      what is below a prefix, page by page, or one level of it
odd_keys      keys that obstore cannot name, by boto3
range_reader  an object as a file that is read in pieces
list_objects  a prefix -> what is below it, in order, many prefixes at a time
image_rows    a prefix -> rows, as `list_images` gives them of a folder
read_object   an image's bytes, or the reason why not
lease         who may write to a prefix, which ends with whoever holds it
share_shards  shards, committed by workers that see no more than the bucket, and brought here
mirror        the folders in which a prefix is worked on, or read
output        a result in a bucket: worked on in a mirror, shown by one pointer
kept_copies   folders in the cache, each made whole and kept while it is read
copies        results and models of a bucket, brought here to be read
control       boto3's client, for settings of buckets and versions of objects
policy        whether a bucket is in the EU, encrypted, not public, and asks for TLS
versions      versions that a bucket keeps of objects, deleted for good
state         small files of the state of an output
examine       what of buckets would keep a run from going well

Nothing here but `address` is imported by a run that has no address, nor are obstore and boto3.
"""
