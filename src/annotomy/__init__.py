"""Annotomy: annotation and segmentation server for medical images."""
