"""Running the system: health, metrics."""
