import platform
import subprocess
import sys

import pytest

PROGRAM = """
import os, resource, sys, torch
from densessl.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
def steps():
    for _ in range(20):
        torch.ones(2**24)  # 64 MB, more than glibc ever keeps by itself
steps()
before = faults()
steps()
print(faults() - before)
held = resident()
if not os.fork():
    os._exit(0)
os.wait()
print(held - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_freed_memory_is_kept_for_the_next_step_and_not_for_workers():
    seen = {
        how: [
            float(line)
            for line in subprocess.check_output(
                [sys.executable, "-c", PROGRAM, how], text=True
            ).split()
        ]
        for how in ("plain", "keep")
    }
    (plain, _), (kept, given_back) = seen["plain"], seen["keep"]
    assert kept < plain / 10
    assert given_back > 60  # MB
