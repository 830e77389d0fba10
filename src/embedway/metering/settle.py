"""What a request is billed: from what was asked and answered to the row of the ledger."""

from embedway.core.keys import Caller
from embedway.core.money import NanoUsd
from embedway.core.request import EmbedRequest
from embedway.core.usage import UsageRow


def row(
    request: EmbedRequest,
    caller: Caller,
    *,
    id: str,
    request_id: str,
    at_ms: int,
    latency_s: float,
    status: int = 200,
    model: str | None = None,
    provider: str = "",
    tokens: int = 0,
    estimated: bool = False,
    priced: bool = True,
    cost_nano_usd: NanoUsd = 0,
) -> UsageRow:
    """The row of one answer; a refused one has no tokens and no cost."""
    return UsageRow(
        id=id,
        at_ms=at_ms,
        request_id=request_id,
        key_id=caller.key_id,
        on_behalf_of=caller.on_behalf_of,
        user=request.user,
        metadata=request.metadata,
        model=model or request.model,
        provider=provider,
        items=len(request.items),
        tokens=tokens,
        estimated=estimated,
        priced=priced,
        cost_nano_usd=cost_nano_usd,
        latency_us=round(latency_s * 1_000_000),
        status=status,
    )
