"""The tokenizers of models that run elsewhere."""
