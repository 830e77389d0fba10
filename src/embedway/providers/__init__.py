"""Everyone else's models: rows of data, one pure adapter per protocol, and the one HTTP client."""
