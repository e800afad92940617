"""The exporter: what it counts."""

from prometheus_client import REGISTRY

import llmasos_usage_exporter as exporter
from llmasos.hooks import AuditRecord, UsageRecord
from llmasos.kernel.capability import Used


def record(app, used, outcome="ok"):
    return UsageRecord("default", "local", app, "i", "model", "generate", used, 0.2, outcome)


def value(name, **labels):
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_tokens_and_cost_are_counted_by_app_and_model():
    exporter.on_usage(record("acme/a", Used(10, 5, 7, "gpt")))
    exporter.on_usage(record("acme/a", Used(1, 1, None, "gpt")))
    assert value("llmasos_tokens_total", app="acme/a", model="gpt", kind="prompt") == 11
    assert value("llmasos_tokens_total", app="acme/a", model="gpt", kind="completion") == 6
    assert value("llmasos_cost_micro_usd_total", app="acme/a", model="gpt") == 7
    assert value("llmasos_unpriced_calls_total", app="acme/a", model="gpt") == 1


def test_a_call_without_a_model_counts_as_a_call_alone():
    exporter.on_usage(record("acme/b", Used(), outcome="conflict"))
    labels = {"app": "acme/b", "capability": "model", "function": "generate", "outcome": "conflict"}
    assert value("llmasos_capability_calls_total", **labels) == 1
    assert value("llmasos_tokens_total", app="acme/b", model="", kind="prompt") == 0


def test_denials_are_counted():
    exporter.on_audit(AuditRecord("default", "local", "acme/c", "i", "http.request", "denied", {}))
    exporter.on_audit(AuditRecord("default", "local", "acme/c", "i", "http.request", "ok", {}))
    assert value("llmasos_denials_total", app="acme/c", event="http.request") == 1
