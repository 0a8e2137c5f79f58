"""Runners execute the tasks of a stage: numbers go in, bytes come out. Tasks read and write files themselves.

base            the port of a runner, and the runner in this process
factory         the runner that the settings select
local           worker processes on this machine
spark           Spark's executors
spark_session   the Spark session, found or started
spark_daemon    the program that starts Python on an executor
java            the Java that Spark needs
background      a runner that starts in the background
environment     environment variables that affect worker processes
"""
