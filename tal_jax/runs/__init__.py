"""Work directories of runs: training them, tuning, comparing."""
