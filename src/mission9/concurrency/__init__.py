"""Threads and processes beside the work.

ahead         work done by threads ahead of whoever takes what comes of it
beside        work of a thread beside what is done in a context
watch         worker processes that hang or are stopped are ended
spark_daemon  what Spark starts its Python workers with
"""
