"""Breaks things around the gateway and checks that it keeps its promises."""
"""Tries to break the gateway: a seeded simulation of everything around it, and real processes."""
