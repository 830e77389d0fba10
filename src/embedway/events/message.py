"""Writes an event as the HTTP request that a webhook receives. Does no I/O.

The signature is that of Standard Webhooks, which receivers verify with that project's libraries:
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import hmac
import html
from base64 import b64encode
from datetime import UTC, datetime

import orjson

from embedway.events.event import Event, Webhook


def encode_body(webhook: Webhook, event: Event) -> bytes:
    """Return the body in the webhook's format."""
    if webhook.format == "slack":
        # Slack reads these three characters as markup: https://docs.slack.dev/messaging
        return orjson.dumps({"text": html.escape(event.text, quote=False)})
    timestamp = datetime.fromtimestamp(event.at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return orjson.dumps(
        {
            "id": event.id,
            "type": event.type,
            "timestamp": timestamp.replace("+00:00", "Z"),
            "data": event.data,
        }
    )


def sign(webhook: Webhook, event: Event, body: bytes, *, now_s: int) -> dict[str, str]:
    """Return the headers that say which event this is, when it was sent, and who sent it.

    `now_s` is the time of this try, in seconds since the epoch. Receivers refuse an old one.
    """
    headers = {"webhook-id": event.id, "webhook-timestamp": str(now_s)}
    if webhook.secret:
        content = f"{event.id}.{now_s}.".encode() + body
        digest = hmac.digest(webhook.secret, content, "sha256")
        headers["webhook-signature"] = f"v1,{b64encode(digest).decode()}"
    return headers
