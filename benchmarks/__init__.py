"""Measures the gateway, always beside a baseline in the same run. Run `make bench`."""
