"""Segmentations: coded segments over a series, their masks in bricks, every version kept; DICOM SEG and other forms."""
