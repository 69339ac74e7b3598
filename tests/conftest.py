"""For all tests: one thread a process, before anything imports torch. Two that wait for each other on busy cores take several times as long."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
