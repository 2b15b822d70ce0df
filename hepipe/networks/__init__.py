"""Neural networks without losses."""
