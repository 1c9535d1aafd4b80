"""The networks of this folder, written once, with feedback points in place."""
