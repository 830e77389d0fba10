"""Sends requests to deployments: prepares, cuts, retries, splits, fails over and joins."""
