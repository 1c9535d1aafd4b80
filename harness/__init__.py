"""What every task's scripts share: run folders, checkpoints, seeds, data, tables and the report.

Nothing here knows a task, and importing the package costs nothing: each module imports the heavy libraries it needs
where it needs them.
"""
