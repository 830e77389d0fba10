"""What a request is answered with, before it is on the wire."""

from collections.abc import Sequence

import msgspec

from embedway.catalog.model import Served
from embedway.core.limits import Standing
from embedway.core.money import NanoUsd
from embedway.core.spaces import SpaceId
from embedway.core.vectors import Vectors
from embedway.metering.billing import Bill, Tally, charge
from embedway.sending.sender import Embedded


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a request is answered with."""

    id: str
    created_s: int
    served: Sequence[Served]
    """Who answered: for each part of the input, in order; none twice."""
    space: SpaceId
    vectors: Vectors
    tokens: int
    cost_nano_usd: NanoUsd
    """Of those with a known price."""
    standings: Sequence[Standing]
    """Of each limit that the request is subject to, itself counted."""
    engine_s: float
    """Of the latency, what was spent waiting for and running the model."""

    @property
    def providers(self) -> str:
        """Who answered, joined by commas."""
        return ",".join(each.provider for each in self.served)


def answer(
    embedded: Embedded,
    tallies: Sequence[Tally],
    *,
    space: SpaceId,
    bill: Bill,
    engine_s: float,
    standings: Sequence[Standing],
) -> Answer:
    """The answer that `embedded` makes; notes in `tallies` what each deployment gave to it."""
    for part in embedded.parts:
        tally = tallies[part.at]
        tally.items += part.items
        tally.tokens += part.tokens
        tally.exact = tally.exact and part.exact
    by = [tallies[at] for at in dict.fromkeys(part.at for part in embedded.parts)]
    return Answer(
        id=bill.id,
        created_s=bill.at_ms // 1000,
        served=[each.served for each in by],
        space=msgspec.structs.replace(space, dimensions=embedded.vectors.shape[1]),
        vectors=embedded.vectors,
        tokens=sum(each.tokens for each in by),
        cost_nano_usd=sum(charge(each.served, each.tokens) for each in by),
        standings=standings,
        engine_s=engine_s,
    )
