"""Who serves a request."""
