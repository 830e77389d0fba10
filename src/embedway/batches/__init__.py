"""Batches: files of requests that are answered in the background, each line exactly once."""
