"""Runs real gateways, databases, balancers and clients on this machine, and breaks them."""
