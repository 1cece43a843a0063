import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import os, torch
from densessl.memory import keep_freed_memory
keep_freed_memory()
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
before = resident()
tensors = [torch.ones(2**22) for _ in range(8)]  # 128 MB, more than glibc keeps by itself
del tensors
held = resident()
print(held - before)
if not os.fork():
    os._exit(0)
os.wait()
print(held - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_freed_memory_is_kept_for_the_next_step_and_goes_back_before_a_fork():
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}  # it is for training on a CPU
    out = subprocess.check_output([sys.executable, "-c", PROGRAM], text=True, env=env)
    kept, given_back = map(float, out.split())  # MB
    assert kept > 100 and given_back > 100
