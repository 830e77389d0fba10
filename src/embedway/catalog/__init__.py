"""Holds the known models: data files, their loader and their checks."""
