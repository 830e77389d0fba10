"""Which deployments may serve a request, and in which order; the listing of models."""
