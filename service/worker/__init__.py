"""What carries a job out: dispatcher, executors, runner, and the one place that starts the trainer. Torch-free."""
