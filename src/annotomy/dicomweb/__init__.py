"""DICOMweb (PS3.18): STOW-RS, QIDO-RS, WADO-RS over the archive's operations."""
