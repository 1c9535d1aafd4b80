"""The runs behind docs/learned-feedback.md: the options of `fitted` one at a time, its alignment, what bounds it."""
