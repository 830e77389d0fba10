"""Defines the values that travel between rooms: requests, batches, vectors, errors and money."""
