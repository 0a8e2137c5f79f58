"""What spark-submit is given to run: `spark-submit --py-files mission9.zip spark_main.py run --input …`."""

from mission9.cli import program

program()
