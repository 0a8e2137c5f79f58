"""A dataset from Kaggle, or from a local archive, as an input folder for a run; the archive is untrusted.

archive        the contents of a .zip or .tar(.gz), entry by entry, in order
check_entries  refuses names that lead out, links, devices, bombs, and two entries with one path
find_layout    the folder in it that holds Training and Test
kaggle         Kaggle's archive of a dataset, in a pinned version
fetch_dataset  the whole task: the folder appears when it is complete
"""
