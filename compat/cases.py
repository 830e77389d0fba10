"""The cases that every client is tried on, and the texts they send."""

from dataclasses import dataclass, field
from typing import Any

import tiktoken

BUILT_IN = "auto"
"""Stands for the built-in model: 384 dimensions and 256 tokens."""
HOSTED = "text-embedding-3-small"
"""A model that shortens its vectors of 1536 dimensions and takes token ids."""

TEXTS = [
    "How do I return a parcel?",
    "Returns are free within thirty days.",
    "The warehouse opens at eight in the morning.",
    "Our office is in Utrecht, near the station.",
    "Please send the invoice to the accounting department.",
    "The blue bicycle costs four hundred euros.",
    "A cat sleeps on the warm windowsill.",
    "Heavy rain is expected on Thursday.",
    "The recipe needs two eggs and a cup of flour.",
    "She plays the cello in a string quartet.",
]
QUESTION = "What will the weather be like?"
MANY = [f"Parcel {number} is on its way." for number in range(3000)]
UNICODE = [
    "naïve café, Straße, Łódź",
    "汉字 and かな and 한국어",
    "مرحبا بالعالم, שלום עולם",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽",
    "e\u0301 is not é, and ﬁ is a ligature",
    "two\nlines\tand a tab",
]
LONG = "cat " * 300
SPLIT = "汉字🙂" * 8
SPLIT_TOKENS = 7
"""Pieces of this many tokens end inside a character."""


def pieces(text: str, encoding: tiktoken.Encoding, size: int) -> list[list[int]]:
    """Cut a text's token ids of cl100k_base into pieces of `size`, as LangChain does."""
    ids = encoding.encode_ordinary(text)
    return [ids[start : start + size] for start in range(0, len(ids), size)]


@dataclass(frozen=True)
class Case:
    """One thing to try, the same for every client."""

    name: str
    sends: str
    """What the client is asked to do, as `docs/clients.md` says it."""
    texts: list[str]
    single: bool = False
    """Whether to send the one text as a string, not as a list."""
    split_tokens: int | None = None
    """Sends token ids instead of text, in pieces of so many tokens."""
    model: str = BUILT_IN
    options: dict[str, Any] = field(default_factory=dict)
    key: str = "unlimited"
    """Which key to send: `unlimited`, `wrong`, or one with a limit per `second` or `hour`."""
    gateway: str = "usual"
    """Which gateway to send it to: `usual`, or `prepared` for what clients send by themselves."""
    method: str = "embed"
    """The function of the driver to call: `embed`, `aembed`, `default` or `search`."""

    @property
    def is_limited(self) -> bool:
        """Whether the key has a rate limit."""
        return self.key in {"second", "hour"}


CASES = [
    Case("one text", "one text, as a string", TEXTS[:1], single=True),
    Case("list", "ten texts", TEXTS),
    Case("3,000 texts", "3,000 texts, in one call of the client", MANY),
    Case(
        "3,000 texts, allowed", "the same, to a gateway with `max_items = 4096`", MANY,
        gateway="prepared",
    ),
    Case("unicode", "texts of many scripts, with emoji and combining marks", UNICODE),
    Case("base64", "`encoding_format: base64`", TEXTS, options={"encoding_format": "base64"}),
    Case("float", "`encoding_format: float`", TEXTS, options={"encoding_format": "float"}),
    Case("async", "ten texts, by the client's asynchronous method", TEXTS, method="aembed"),
    Case(
        "own width", "`dimensions: 384`, the built-in model's own", TEXTS,
        options={"dimensions": 384},
    ),
    Case(
        "shorter", f"`dimensions: 256`, to `{HOSTED}`", TEXTS, model=HOSTED,
        options={"dimensions": 256},
    ),
    Case("token ids", "token ids of whole texts", TEXTS[:2], split_tokens=1000),
    Case(
        "split ids", "token ids, split inside a character", [SPLIT], split_tokens=SPLIT_TOKENS,
    ),
    Case(
        "split ids, hosted", f"the same, to `{HOSTED}`, whose provider takes token ids", [SPLIT],
        split_tokens=SPLIT_TOKENS, model=HOSTED,
    ),
    Case("empty", "an empty text", [""]),
    Case("too long", "a text of 302 tokens", [LONG]),
    Case("wrong key", "a key that does not exist", TEXTS, key="wrong"),
    Case(
        "default model", "no model, to a gateway with [aliases](#name-the-model)", TEXTS,
        gateway="prepared", method="default",
    ),
    Case(
        "limit per second", "two texts, while a limit of one request per second is full",
        TEXTS[:2], key="second",
    ),
    Case(
        "limit per hour", "two texts, while a limit of one request per hour is full", TEXTS[:2],
        key="hour",
    ),
    Case(
        "search", "ten texts to store, and a question to search them with", TEXTS,
        method="search",
    ),
]  # fmt: skip
