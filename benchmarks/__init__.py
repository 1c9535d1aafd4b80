"""Step time, memory and throughput: the methods against backpropagation, the project against its peers."""
