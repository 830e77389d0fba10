"""Serves the control plane: every HTTP route except embeddings."""
