"""Cohere's v2 protocol; of other hosts of its models, the body without the model and the reply."""

from collections.abc import Sequence
from typing import Any

import msgspec

from embedway.core.batch import Batch
from embedway.http.call import HttpCall
from embedway.providers import usage
from embedway.providers.adapter import merge_extra
from embedway.providers.adapters.openai import OpenAi, ReplyBody
from embedway.providers.floats import Value

_DEFAULT = "search_document"
"""What a client means who says nothing: most of what is embedded is to be found, not to find."""


class _ByEncoding(msgspec.Struct):
    as_base64: list[bytes] | None = msgspec.field(name="base64", default=None)
    as_floats: list[list[float]] | None = msgspec.field(name="float", default=None)


class _Answer(ReplyBody):
    embeddings: _ByEncoding | list[list[float]] | None = None
    """A plain list where no encoding could be asked for."""
    meta: msgspec.Raw = msgspec.Raw()

    def values(self, batch: Batch) -> Sequence[Value] | None:
        """The vectors, in the order of the items."""
        given = self.embeddings
        if isinstance(given, _ByEncoding):
            return given.as_floats if given.as_base64 is None else given.as_base64
        return given

    def tokens(self) -> int | None:
        """The tokens that are billed."""
        return usage.tokens(usage.within(self.meta, "billed_units"), "input_tokens")


class Cohere(OpenAi):
    """Cohere's words."""

    answer = _Answer

    def encode(self, batch: Batch) -> HttpCall:
        """Write the call that embeds `batch`."""
        body = {"model": batch.model, **self.fields(batch)}
        return HttpCall(path=self.path(batch), body=merge_extra(body, batch.extra))

    def fields(self, batch: Batch) -> dict[str, Any]:
        """The body without the model, which other hosts want elsewhere."""
        body = {
            "input_type": _DEFAULT,
            "embedding_types": "float",
            **super().fields(batch),
        }
        body["texts"] = body.pop("input")
        body["embedding_types"] = [body["embedding_types"]]
        del body["model"]
        return body
