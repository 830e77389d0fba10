"""Corpora: rows of text go in, and each row's vectors go into a sink, exactly once."""
