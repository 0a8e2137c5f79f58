"""Background threads, and supervision of worker processes.

prefetch    ordered, bounded prefetching with a thread pool
background  a background thread for the duration of a context
watchdog    ends worker processes that hang or are stopped
"""
