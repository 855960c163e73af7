"""The HTTP server: its arguments and its start."""
