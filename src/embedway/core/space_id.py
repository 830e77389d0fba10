"""Defines the identity of a vector space."""

import msgspec


class SpaceId(msgspec.Struct, frozen=True, kw_only=True):
    """The identity of a vector space. Vectors are comparable if their space ids are equal."""

    model: str
    revision: str
    """12 hex digits for weights and tokenizer, or the name of the provider that runs them."""
    pooling: str
    normalised: bool | None
    prompt: str
    """The name of the prompt put before each text, or `none`."""
    dimensions: int

    def __str__(self) -> str:
        norm = {True: "l2", False: "raw", None: "unstated"}[self.normalised]
        return (
            f"{self.model}@{self.revision}/{self.pooling}-{norm}/prompt-{self.prompt}"
            f"/{self.dimensions}"
        )
