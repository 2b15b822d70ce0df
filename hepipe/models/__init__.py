"""The model contract and the catalogue of published models."""
