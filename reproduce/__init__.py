"""Published tables again: run what is missing, show paper beside ours, write tables, READMEs and the report."""
