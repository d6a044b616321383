"""The folder in which the pipeline runs: its files, what DVC can record there, and who else works in it."""
