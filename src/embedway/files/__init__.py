"""Files that clients upload and batches write: their records, and their content."""
