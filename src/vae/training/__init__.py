"""How a model gets there: schedules, optimiser, loop, checkpoints."""
