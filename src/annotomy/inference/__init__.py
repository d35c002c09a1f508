"""Automatic segmentation: models, the runners that feed them, predictions."""
