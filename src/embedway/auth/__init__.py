"""Authenticates requests by keys, the gateway's own tokens and tokens of outside issuers."""
