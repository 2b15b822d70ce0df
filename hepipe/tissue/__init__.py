"""Where on a slide there is tissue."""
