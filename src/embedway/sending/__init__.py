"""Sends a request to deployments: prepares, cuts, retries, fails over and joins the answers."""
