"""Tile sets made elsewhere, brought into the tile store."""
