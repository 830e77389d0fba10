"""Every kind of provider as a row of data, by what they have in common."""
