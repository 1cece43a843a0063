import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from densessl.process import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def steps():
    for _ in range(20):
        torch.ones(2**24)  # 64 MB, more than glibc ever keeps by itself
steps()
before = faults()
steps()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_freed_memory_is_kept_for_the_next_step():
    faults = {
        how: int(subprocess.check_output([sys.executable, "-c", PROGRAM, how], text=True))
        for how in ("plain", "keep")
    }
    assert faults["keep"] < faults["plain"] / 10
