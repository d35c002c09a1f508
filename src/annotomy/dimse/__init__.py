"""DICOM over TCP (PS3.7, PS3.8): our own asyncio upper layer and the services that speak to the archive's operations."""
