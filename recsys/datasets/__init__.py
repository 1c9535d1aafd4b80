"""The click logs, a file each: where its rows are, what they hold, how they are split."""
