"""Tries to break the gateway: a seeded simulation of everything around it, and real processes."""
