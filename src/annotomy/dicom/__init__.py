"""Pure DICOM knowledge: imports nothing of ours."""
