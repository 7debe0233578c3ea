"""State, compiled steps, rounds, checkpoints, the log of metrics."""
