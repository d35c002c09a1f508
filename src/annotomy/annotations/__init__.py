"""Annotations: points, lines, regions and labels on studies, in versions that nothing removes."""
