"""Ours beside what else there is, from the same dense start, with the same data and epochs."""
