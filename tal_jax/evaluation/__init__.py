"""Detections compared with the ground truth."""
