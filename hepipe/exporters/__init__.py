"""Data sets in the layouts that other tools read."""
