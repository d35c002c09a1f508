"""Resumable uploads (tus 1.0) and the job that takes what they hold into the archive."""
