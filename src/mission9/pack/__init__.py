"""Pack many small images into few large Parquet files, once, as the input of later runs.

place       checks on the place of a pack, and its write lock
resume      the work left by earlier calls, and the work still to do
plan_pack   rows of a listing -> those that a pack holds already, and parts for the rest
write_part  a part's number -> its images, read concurrently, in one file     (on worker processes)
publish     the index of finished parts, then the manifest, which comes last
make_pack   the whole sequence, from the listing to the published pack

    PACK/mission9-pack.json         the manifest, written last: it names the current index
    PACK/index/ID.index.parquet     a row for each image, sorted by path: the place of its bytes, or why it was rejected
    PACK/images/KEY.parquet         a part: path, split, label, bytes, sha256, size, modified
    PACK/rejects/ID.parquet         the unreadable images
    PACK/_state/                    the plan, its finished parts, the lock: internal, not for readers
"""
