"""Runs the application: its socket, signals and shutdown."""
