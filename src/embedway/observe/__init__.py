"""Writes metrics and logs."""
