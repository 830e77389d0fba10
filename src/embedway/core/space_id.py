"""Names a vector space."""

import msgspec


class SpaceId(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides what a vector means; equal ids mean comparable vectors."""

    model: str
    revision: str
    """12 hex digits that stand for weights and tokenizer, or the provider whose they are."""
    pooling: str
    normalised: bool | None
    prompt: str
    """Name of the prompt that is put before each text, or `none`."""
    dimensions: int

    def __str__(self) -> str:
        norm = {True: "l2", False: "raw", None: "unstated"}[self.normalised]
        return (
            f"{self.model}@{self.revision}/{self.pooling}-{norm}/prompt-{self.prompt}"
            f"/{self.dimensions}"
        )
