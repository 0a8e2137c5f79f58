"""Threads and processes beside the work.

prefetch    work done by threads ahead of whoever takes what comes of it
background  work of a thread beside what is done in a context
watchdog    worker processes that hang or are stopped are ended
"""
