"""For all tests: one thread a process, and no reports from ONNX Runtime to its maker, set before anything imports torch or the like.

Two threads that wait for each other on busy cores take several times as long as one.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
