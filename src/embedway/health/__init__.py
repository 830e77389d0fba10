"""Whether each deployment can be asked now, and how long it takes."""
