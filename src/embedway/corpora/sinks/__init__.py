"""Where the vectors of a corpus go: one file for each kind of sink."""
