"""Simulates replicas of the gateway with their surroundings and clients, from a seed."""
