"""One request as several calls, and several answers as one."""
