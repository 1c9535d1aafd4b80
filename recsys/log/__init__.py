"""From the text of a click log to the batches of a training."""
