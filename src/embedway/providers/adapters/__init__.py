"""One file per protocol: bytes out, bytes in, no I/O."""
