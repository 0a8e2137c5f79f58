"""Run on cloud machines; `files` holds the files that are uploaded with the wheel."""
