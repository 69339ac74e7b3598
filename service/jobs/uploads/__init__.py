"""Models and datasets that were uploaded by themselves, for jobs to name."""
