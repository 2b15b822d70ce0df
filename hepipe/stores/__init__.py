"""What is written to disk: table schemas, zarr layouts, provenance."""
