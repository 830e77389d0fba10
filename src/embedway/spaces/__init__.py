"""Vector spaces: which deployments serve them, the probes that prove it, and their SQL."""
