"""Steps of a pipeline that show a rule what backpropagation would do: exact ones, and answers to noise."""
