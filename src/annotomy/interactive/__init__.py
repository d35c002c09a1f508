"""Segmentation by hand and hint: a few points or strokes of a person become a mask of what they meant."""
