"""For all tests: one thread a process, set before anything imports torch.

Two threads that wait for each other on busy cores take several times as long as one.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
