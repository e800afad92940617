"""The compute of concurrent calls in one process, by the process's clock."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmasos.runtimes.compute import SLACK_SECONDS, ComputeMeter


@dataclass
class Clocks:
    computed: float = 100.0
    passed: float = 0.0

    def meter(self) -> ComputeMeter:
        return ComputeMeter(lambda: self.computed, lambda: self.passed)


@pytest.mark.parametrize(("computed", "exceeded"), [(2.0, False), (2.0 + SLACK_SECONDS, False), (3.1, True)])
def test_a_call_has_its_own_compute_and_the_slack(computed: float, exceeded: bool) -> None:
    clocks = Clocks()
    meter = clocks.meter()
    meter.began("a", 2.0)
    clocks.computed += computed
    assert meter.is_exceeded() is exceeded


def test_calls_at_once_have_what_they_have_together_until_one_ends() -> None:
    clocks = Clocks()
    meter = clocks.meter()
    meter.began("a", 2.0)
    meter.began("b", 3.0)
    assert (meter.allowed_seconds, meter.calls) == (5.0, 2)
    clocks.computed += 5.5
    assert not meter.is_exceeded()
    assert meter.ended("a", None) == 2.0
    assert not meter.is_exceeded()
    clocks.computed += 1.0
    assert meter.is_exceeded()


def test_what_a_call_left_unused_is_not_saved_up_for_another() -> None:
    clocks = Clocks()
    meter = clocks.meter()
    for name in ("a", "b", "c"):
        meter.began(name, 10.0)
    clocks.computed += 1.0
    assert [meter.ended(name, None) for name in ("a", "b")] == [1.0, 1.0]
    clocks.computed += 10.0 + SLACK_SECONDS
    assert not meter.is_exceeded()
    clocks.computed += 0.1
    assert meter.is_exceeded()


def test_between_calls_there_is_the_slack_alone() -> None:
    clocks = Clocks()
    meter = clocks.meter()
    meter.began("a", 2.0)
    assert meter.ended("a", 5.0) == 0.0
    clocks.computed += SLACK_SECONDS + 0.1
    clocks.passed += 3600
    assert meter.is_exceeded()


@pytest.mark.parametrize("report", [0.0, 2.0**33, None])
def test_a_report_never_changes_what_a_call_is_charged_that_ran_alone(report: float | None) -> None:
    """11-S11: a native app's `done` reported 2^62 units of fuel and used up everybody's compute."""
    clocks = Clocks()
    meter = clocks.meter()
    meter.began("a", 2.0)
    clocks.computed += 0.5
    assert meter.ended("a", report) == 0.5


@given(
    st.lists(st.tuples(st.floats(0, 2), st.none() | st.floats(0, 2.0**33)), min_size=1, max_size=8),
    st.floats(0, 1),
)
def test_calls_at_once_are_charged_together_what_the_process_computed(
    calls: list[tuple[float, float | None]], more: float
) -> None:
    """11-S11: a report is advisory: none exceeds what a call was allowed, and none hides compute."""
    clocks = Clocks()
    meter = clocks.meter()
    for number in range(len(calls)):
        meter.began(str(number), 4.0)
    charged = 0.0
    for number, (computed, report) in enumerate(calls):
        clocks.computed += computed
        if number == len(calls) - 1:
            clocks.computed += more
        one = meter.ended(str(number), report)
        assert 0 <= one <= 4.0
        charged += one
    total = clocks.computed - 100.0
    # The last call is charged the remainder, up to its limit.
    assert charged >= min(total, 4.0) - 1e-6


class Honest:
    """Calls that come and go and each keep to their compute, under a runner that takes its share."""

    def __init__(self) -> None:
        self.clocks = Clocks()
        self.meter = self.clocks.meter()
        self.left: dict[str, float] = {}


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0.01, 5), st.floats(0, 1)), max_size=60))
def test_an_honest_app_is_never_ended(steps: list[tuple[str, float, float]]) -> None:
    honest = Honest()
    for name, allowed, share in steps:
        if name not in honest.left:
            honest.meter.began(name, allowed)
            honest.left[name] = allowed
        else:
            used = honest.left[name] * share
            honest.clocks.computed += used
            honest.left[name] -= used
        assert not honest.meter.is_exceeded()
        if share > 0.7:
            honest.meter.ended(name, 0.0)
            del honest.left[name]
        assert not honest.meter.is_exceeded()
