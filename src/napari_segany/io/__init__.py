"""Lazy frames in, labels and journals out."""
