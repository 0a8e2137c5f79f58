"""Many small images in few large Parquet files, packed once, which a run takes as its input.

place       what may be where a pack goes, and who may write it
resume      what earlier calls have left, and what is to do after them
plan_pack   rows of a listing -> which of them a pack holds already, and parts for the rest
write_part  a part's number -> its images, read many at a time, in one file     (on worker processes)
publish     the index of parts that are done, then the manifest, which comes last
make_pack   the whole of it, from a listing to what is shown

    PACK/mission9-pack.json         the manifest, written last: which index is the pack
    PACK/index/ID.index.parquet     a row for each image, in order of path: where its bytes are, or why there are none
    PACK/images/KEY.parquet         a part: path, split, label, bytes, sha256, size, modified
    PACK/rejects/ID.parquet         what could not be read
    PACK/_state/                    the plan, what of it is done, the lock: not for readers
"""
