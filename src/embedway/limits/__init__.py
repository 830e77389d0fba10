"""What a request may be."""
