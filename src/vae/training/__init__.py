"""Training: schedules, optimiser, loop, checkpoints, distributed."""
