"""One measurement of a tile pair per file, and the verdict on them."""
