"""Annotomy: annotation and segmentation server for medical images."""

from importlib.metadata import version

__version__ = version("annotomy")
