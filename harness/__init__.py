"""What every task's scripts share: run folders, checkpoints, seeds, data, tables and the report.

No module here depends on a task. Importing the package costs nothing: each module imports the heavy libraries it needs
where it needs them.
"""
