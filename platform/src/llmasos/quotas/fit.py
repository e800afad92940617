"""Shrinks a demand to what is left. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from llmasos.quotas.meters import Demand, Meter


def fit(demand: Demand, room: Mapping[Meter, int]) -> Demand | None:
    """Return the demand, its answer shortened to the room; None if even the floor does not fit.

    Args:
        demand: What is asked for.
        room: What is left of each limited meter. A meter that is absent has no limit.
    """
    excess = {
        meter: amount - room[meter] for meter, amount in demand.amounts.items() if amount > room.get(meter, amount)
    }
    if not excess:
        return demand
    shrink = demand.shrink
    if shrink is None:
        return None
    cut = 0
    for meter, over in excess.items():
        if meter is shrink.meter:
            cut = max(cut, over)
        elif meter is Meter.COST and shrink.micro_usd_per_token > 0:
            cut = max(cut, _tokens_worth(over, shrink.micro_usd_per_token))
        else:
            return None
    if shrink.tokens - cut < min(shrink.floor, shrink.tokens):
        return None
    smaller = dict(demand.amounts)
    smaller[shrink.meter] -= cut
    if Meter.COST in smaller and shrink.micro_usd_per_token > 0:
        smaller[Meter.COST] -= math.floor(cut * shrink.micro_usd_per_token)
    return replace(demand, amounts=smaller, shrink=replace(shrink, tokens=shrink.tokens - cut))


def _tokens_worth(micro_usd: int, price: float) -> int:
    """The fewest tokens that cost at least this much, rounded down to whole micro-USD as the bill is."""
    tokens = math.ceil(micro_usd / price)
    while math.floor(tokens * price) < micro_usd:
        tokens += 1
    return tokens
