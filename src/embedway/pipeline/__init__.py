"""Takes a request from decoded input to a recorded answer."""
