"""Concurrency without a subject: work in groups, one flight for many, caches, background tasks."""
