"""Runs the application: its socket, its signals, its end."""
