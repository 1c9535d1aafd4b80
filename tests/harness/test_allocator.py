"""Freed memory that is kept is not asked for again."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import numpy as np
from harness.run.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()

def round_of_blocks():
    blocks = [np.ones(3_000_000) for _ in range(4)]  # 24 MB each

round_of_blocks()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    round_of_blocks()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode):
    done = subprocess.run([sys.executable, "-c", SCRIPT, mode], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator has these settings")
def test_blocks_are_used_again():
    assert page_faults("keep") < page_faults("leave") / 10
