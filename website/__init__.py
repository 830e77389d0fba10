"""The documentation site, and what it is made with."""
