"""iacolippo's DFA notebooks: linear theory, MNIST, stacks of weak learners."""
