"""Known models: data files and their loader."""
