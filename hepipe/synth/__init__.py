"""Synthetic slide pairs with their truth."""
