"""Trained networks applied to recordings."""
