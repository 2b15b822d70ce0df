"""One reader contract for every kind of slide file."""
