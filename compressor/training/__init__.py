"""Training: rows in memory, the loop over them, the schedules, and the checkpoint that a killed run goes on from."""
