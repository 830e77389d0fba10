"""The one request path."""
