"""Files with trained weights: roles, manifest, hashes, safe loading."""
