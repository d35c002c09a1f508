"""Where bytes lie: immutable objects under the BLAKE3 of their content."""
