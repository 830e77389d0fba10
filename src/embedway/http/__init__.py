"""The one HTTP client that calls other servers, and its address checks."""
