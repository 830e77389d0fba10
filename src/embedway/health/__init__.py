"""Whether each deployment can be called now, and how long a call takes."""
