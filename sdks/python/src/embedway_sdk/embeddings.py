"""Turns texts into vectors."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from embedway_sdk.client import Call, Resource, asynchronous, blocking
from embedway_sdk.loading import reader
from embedway_sdk.many import EmbedMany, Item, Progress
from embedway_sdk.types import DeploymentList, DryRun, EmbedFields
from embedway_sdk.vectors import EmbeddingsResponse, read_embeddings

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from embedway_sdk.retries import RetryConfig

PATH = "/v1/embeddings"

Input = str | Sequence[int] | Sequence[Item]
"""One text, several texts, the token ids of one text, or of several."""


class EmbedOptions(EmbedFields, total=False):
    """The optional fields of a request, and how to send it."""

    on_behalf_of: str | None
    """Your end user, whose limits, budgets and usage count."""
    timeout_ms: int | None
    """The longest wait for one try, in milliseconds."""
    retries: RetryConfig | None
    """Which failures to try again, in place of the SDK's `retry_config`."""
    http_headers: Mapping[str, str] | None
    """Headers to add."""


class Embeddings(Resource):
    """Embeddings, and the models that make them."""

    def _embed(
        self,
        *,
        input: Input,
        model: str = "auto",
        encoding_format: Literal["float", "base64"] | None = None,
        **options: Unpack[EmbedOptions],
    ) -> Call[EmbeddingsResponse]:
        """Embed the inputs of one request.

        Args:
            input: One text, several texts, or OpenAI's token ids of one or several texts.
            model: `provider:model`, a bare model id, an alias, or `auto`.
            encoding_format: How the vectors travel. Without it they come as base64, which is
                smaller and faster to read. The result has the same form in any case.
            **options: More fields, and how to send the request; see `EmbedOptions`.

        Raises:
            EmbedwayError: `embedway_sdk.errors` shows all kinds.
        """
        items, dimensions = _count(input), options.get("dimensions")
        parse = functools.partial(read_embeddings, items=items, dimensions=dimensions)
        return _call(parse, input, model, options, encoding_format=encoding_format or "base64")

    embed, embed_async = blocking(_embed), asynchronous(_embed)

    def _dry_run(
        self, *, input: Input, model: str = "auto", **options: Unpack[EmbedOptions]
    ) -> Call[DryRun]:
        """Show the tokens and the price of a request, and which deployments it would try.

        Nothing is embedded or billed.
        """
        call = _call(reader(DryRun), input, model, options)
        return call.changed(query={"dry_run": "true"}, is_safe=True)

    dry_run, dry_run_async = blocking(_dry_run), asynchronous(_dry_run)

    def _list_models(self, *, model: str | None = None) -> Call[DeploymentList]:
        """List the models that the key may use, a row for each provider of each.

        Args:
            model: List only the deployments of this model, by any of its names.
        """
        query = {} if model is None else {"model": model}
        path = "/v1/embeddings/models"
        return Call("GET", path, reader(DeploymentList), query=query, is_safe=True)

    list_models, list_models_async = blocking(_list_models), asynchronous(_list_models)

    def embed_many(
        self,
        inputs: Iterable[Item] | AsyncIterable[Item],
        *,
        model: str = "auto",
        concurrency: int = 4,
        max_items: int = 256,
        on_progress: Callable[[Progress], object] | None = None,
        **options: Unpack[EmbedOptions],
    ) -> EmbedMany:
        """Embed any number of inputs, a bounded number at a time.

        Read the result with `for` or `numpy()`, or with `async for` or `await numpy_async()`.
        Requests are sent as it is read. The first error ends it.

        Args:
            inputs: Texts, or lists of token ids. A generator is read as far as needed.
            model: `provider:model`, a bare model id, an alias, or `auto`.
            concurrency: How many requests run at once.
            max_items: The most inputs of one request.
            on_progress: A function that is called after each request, in order.
            **options: More fields, and how to send each request; see `EmbedOptions`.

        Raises:
            TypeError: `inputs` is one text.
            ValueError: `concurrency` or `max_items` is less than 1.
        """

        def call(items: list[Item]) -> Call[EmbeddingsResponse]:
            return self._embed(input=items, model=model, **options)

        return EmbedMany(
            self._client,
            call,
            inputs,
            concurrency=concurrency,
            max_items=max_items,
            on_progress=on_progress,
        )


def _call(
    parse: Callable[[Any], Any], input: Any, model: str, options: EmbedOptions, **fields: str
) -> Call[Any]:
    """Return the call that sends these inputs, with the options sorted into where they belong."""
    rest: dict[str, Any] = {**options}
    headers = dict(rest.pop("http_headers", None) or {})
    if (user := rest.pop("on_behalf_of", None)) is not None:
        if not (user.isascii() and user.isprintable()) or user != user.strip() or not user:
            raise ValueError(f"on_behalf_of {user!r} must be 1 to 150 printable ASCII characters.")
        headers["x-on-behalf-of"] = user
    return Call(
        "POST",
        PATH,
        parse,
        timeout_ms=rest.pop("timeout_ms", None),
        retries=rest.pop("retries", None),
        http_headers=headers,
        body={"input": input, "model": model, **fields, **rest},
    )


def _count(input: Input) -> int | None:
    """Return how many vectors the input asks for; None if the server has to say what is wrong."""
    if isinstance(input, str):
        return 1
    if not hasattr(input, "__getitem__") or len(input) == 0:
        return None
    return len(input) if hasattr(next(iter(input)), "__len__") else 1
