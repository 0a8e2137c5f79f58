"""A dataset from Kaggle, or from an archive at hand, as a folder that a run takes: nothing of it trusted.

archive        what a .zip or .tar(.gz) holds, entry by entry, in order
check_entries  refuses names that lead out, links, devices, bombs, and what would lie in one place twice
find_layout    the folder in it that holds Training and Test
kaggle         Kaggle's archive of a dataset, in a pinned version
fetch_dataset  the whole of it: the folder appears when all of it is there
"""
