"""Pins, installs and starts the systems beside which Embedway is measured."""
