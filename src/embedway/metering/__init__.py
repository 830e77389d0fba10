"""What a request is billed."""
