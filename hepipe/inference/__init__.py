"""Virtual tiles and slides from a finished model."""
