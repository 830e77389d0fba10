"""Work that is shared or runs in the background, whatever the work is."""
