import platform
import subprocess
import sys

import pytest

PROGRAM = """
import os, resource, torch
from densessl.memory import keep_freed_memory
keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
def steps():
    for _ in range(20):
        tensors = [torch.ones(2**22) for _ in range(8)]  # 128 MB, more than glibc keeps by itself
        del tensors
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
def test_freed_memory_is_kept_for_the_next_step_and_goes_back_before_a_fork():
    out = subprocess.check_output([sys.executable, "-c", PROGRAM], text=True)
    faults, given_back = map(float, out.split())
    assert faults < 20 * 8 * 4096 / 100  # of the pages that are touched
    assert given_back > 100  # MB
