"""Studies in and out of a running server: `annotomy import` and `annotomy export`, clients of its HTTP API."""
