"""Noise schedules, bridges and samplers."""
