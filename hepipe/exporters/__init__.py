"""Datasets and predictions in the layouts of other tools."""
