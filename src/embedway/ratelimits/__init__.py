"""Rate limits, counted in memory or in Redis, with their headers and refusals."""
