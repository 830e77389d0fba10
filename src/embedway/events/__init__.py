"""Events: changes that an operator wants to know of, and their delivery to webhooks."""
