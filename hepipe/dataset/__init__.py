"""From graded tiles to an index with splits and a fingerprint."""
