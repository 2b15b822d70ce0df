"""From virtual tiles to tables of scores."""
