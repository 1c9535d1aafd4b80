"""Where data lies: a read-only root, then the cache, then the network."""

from harness.data.remote import RemoteFile, cache_dir, data_root, fetch

__all__ = ["RemoteFile", "cache_dir", "data_root", "fetch"]
