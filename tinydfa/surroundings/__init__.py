"""What a model stands in: processes that share it, `torch.func`, a compiler, wrappers, other people's hooks."""
