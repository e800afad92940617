"""Exports usage to Prometheus: tokens, cost, calls and their time, by app and model.

The metrics join those that `/metrics` of `llmasos serve` answers with. Users and workspaces are no labels: they are
many, and each would be a series of its own.
"""

from __future__ import annotations

from prometheus_client import Counter, Histogram

from llmasos.hooks import AuditRecord, UsageRecord, hookimpl

__all__ = ["on_audit", "on_usage"]

TOKENS = Counter("llmasos_tokens", "Tokens used.", ("app", "model", "kind"))
COST = Counter("llmasos_cost_micro_usd", "Cost in millionths of a US dollar.", ("app", "model"))
UNPRICED = Counter("llmasos_unpriced_calls", "Calls of models whose price is not known.", ("app", "model"))
CALLS = Counter("llmasos_capability_calls", "Calls of capabilities.", ("app", "capability", "function", "outcome"))
# A stored value takes a millisecond, a long answer minutes.
SECONDS = Histogram(
    "llmasos_capability_call_seconds",
    "How long a call took.",
    ("capability",),
    buckets=(0.001, 0.01, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300),
)
DENIALS = Counter("llmasos_denials", "Calls that were denied.", ("app", "event"))


@hookimpl
def on_usage(record: UsageRecord) -> None:
    """Count one call."""
    app, used = record.app or "", record.used
    CALLS.labels(app, record.capability, record.function, record.outcome).inc()
    SECONDS.labels(record.capability).observe(record.duration_seconds)
    if used.model is None:
        return
    TOKENS.labels(app, used.model, "prompt").inc(used.prompt_tokens)
    TOKENS.labels(app, used.model, "completion").inc(used.completion_tokens)
    if used.cost_micro_usd is None:
        UNPRICED.labels(app, used.model).inc()
    else:
        COST.labels(app, used.model).inc(used.cost_micro_usd)


@hookimpl
def on_audit(record: AuditRecord) -> None:
    """Count one denial."""
    if record.outcome.startswith(("denied", "permission-")):
        DENIALS.labels(record.app or "", record.event).inc()
