"""The one HTTP client that calls other servers, with its address checks."""
