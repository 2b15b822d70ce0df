"""The grid and the one pass that cuts a registered pair into tiles."""
