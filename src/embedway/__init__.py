"""One OpenAI-compatible embeddings endpoint in front of every provider and of your own models."""

from importlib.metadata import version

__version__ = version("embedway")
