"""Vector spaces: who serves them, the canary probes that prove it, and their SQL."""
