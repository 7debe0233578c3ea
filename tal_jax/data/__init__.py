"""Recordings, their clock, their annotations, and the data sets."""
