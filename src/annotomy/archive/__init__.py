"""The DICOM archive: studies, series, instances; stored, queried, retrieved."""
