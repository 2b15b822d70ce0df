"""The transform from an H&E slide to its IHC slide, and its quality."""
