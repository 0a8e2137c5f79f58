"""Runners carry out the tasks of a stage: numbers go in, bytes come out, and the files are the tasks' own business.

base            what a runner is, and the one that works in this process
factory         the runner that settings ask for
local           worker processes of this machine
spark           Spark's executors
spark_session   the session that they belong to, found or started
spark_daemon    what starts Python on an executor
java            the Java that Spark runs on
background      a runner that starts while something else is done
environment     what of the environment decides
"""
