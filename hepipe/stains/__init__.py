"""Stain vectors, colour deconvolution and DAB masks."""
