"""The Protocols between policies and the world."""
