"""Decides which deployments may serve a request and in which order, and lists the models."""
