"""The runs behind docs/learned-feedback.md: the options of `fitted` one at a time, and alignment during training."""
