"""The data plane: embeddings over HTTP."""
