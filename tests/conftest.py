"""Tests run on the CPU: golden curves and resuming bit for bit are for one kind of machine.

``CUDA_VISIBLE_DEVICES=0 make test`` shows them a GPU, which some tests need.
"""

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
