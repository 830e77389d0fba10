"""Provides worker threads, single flights, caches and background tasks for any kind of work."""
