"""The program for spark-submit: `spark-submit --py-files mission9.zip spark_main.py run --input …`."""

import runpy

runpy.run_module("mission9", run_name="__main__")
