"""hepipe: from pairs of H&E and IHC slides to a dataset, trained virtual stains and an honest comparison."""

__version__ = "0.1.0"
