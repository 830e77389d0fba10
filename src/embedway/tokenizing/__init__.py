"""Counts and cuts tokens: OpenAI's cl100k_base, and the limits of models."""
