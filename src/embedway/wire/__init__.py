"""The request and the response on the wire."""
