"""Names the HTTP client: httpx2, or on Python 3.10, which httpx2 does not support, httpx.

Both have the same interface. httpx2 is the one that is maintained, and several times as fast with
many calls at once.
"""

import sys

if sys.version_info >= (3, 11):
    import httpx2 as httpx
else:
    import httpx

__all__ = ["httpx"]
