"""The control plane: everything else over HTTP."""
