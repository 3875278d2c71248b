"""Timing a case on a device, with a stand-in for it: a stream that does its work at once, on the CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch

from opbench import worker
from opbench.api import Implementation
from opbench.cases import Case, Nchw, Pass
from opbench.errors import Unsupported
from opbench.measure.device_clock import DeviceClock
from opbench.measure.stop import WarmUp
from opbench.policies import policies_of
from opbench.registry import Registry
from opbench.results import Policy
from opbench.settings import Measure
from opbench.subject import Subject

REGISTRY = Registry.discover()
TINY = Nchw(1, 2, 3, 3)


class HostStream:
    """Its blocker is a moment before which it pretends to be held; a graph does the work again."""

    cache_bytes = 1 << 10

    def __init__(self, spoil: bool = False) -> None:
        self.spoil = spoil
        self.released = 0.0

    def current(self) -> AbstractContextManager[None]:
        return nullcontext()

    def hold(self, seconds: float) -> None:
        self.released = time.perf_counter() + seconds

    def is_held(self) -> bool:
        return time.perf_counter() < self.released

    def evict(self) -> None:
        pass

    def mark(self) -> float:
        return time.perf_counter()

    def seconds(self, begin: float, end: float) -> float:
        # As if it were a fast device, on which every call is short.
        return (end - begin) / 1000

    def wait(self) -> None:
        pass

    def record(self, work: Callable[[], Any]) -> Callable[[], Any]:
        def again() -> None:
            work()
            if self.spoil:
                for tensor in work.__self__.results[0]:  # type: ignore[attr-defined]
                    tensor.zero_()

        again()
        return again


def timed(monkeypatch: pytest.MonkeyPatch, pass_: Pass, spoil: bool = False) -> worker.Timed:
    clock = DeviceClock(HostStream(spoil), warm_up=WarmUp(max_seconds=0.01))
    monkeypatch.setattr(worker, "_timer", lambda _: clock)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    # The waited calls are far longer than what the stream says it saw.
    monkeypatch.setattr("opbench.measure.blocks.escaped", lambda *_: False)
    case = Case(operator="convolution", shape=TINY, pass_=pass_, scope="core")
    measure = Measure(max_seconds=0.01, cache=("cold", "hot"))
    return worker.time(REGISTRY, case, "reference", measure, 0)


@pytest.mark.parametrize("pass_", ["forward", "training"])
def test_short_calls_on_a_device_are_launched_and_replayed(monkeypatch: pytest.MonkeyPatch, pass_: Pass) -> None:
    found = timed(monkeypatch, pass_)
    assert found.wrong is None
    assert found.deterministic
    policies = [(policy.cache, policy.launch) for policy, _ in found.samplings]
    assert policies == [("cold", "eager"), ("cold", "graph"), ("hot", "eager"), ("hot", "graph")]
    first = {sampling.first_seconds for _, sampling in found.samplings}
    assert len(first) == 1
    assert all(sampling.seconds for _, sampling in found.samplings)
    assert [bool(sampling.call_seconds) for _, sampling in found.samplings] == [True, False, True, False]


def test_what_a_graph_computes_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    found = timed(monkeypatch, "forward", spoil=True)
    assert found.wrong is not None
    assert found.wrong.quantity == "timed forward"


def test_a_gpu_has_no_threads_to_choose() -> None:
    measure = Measure(device="cuda", threads=(1, 4, "physical"), cache=("cold", "hot"))
    assert policies_of(measure) == [
        Policy(cache="cold", threads=1, device="cuda"),
        Policy(cache="hot", threads=1, device="cuda"),
    ]


def test_an_implementation_for_another_device_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = REGISTRY.load("convolution")
    elsewhere = Implementation(core=operator.reference, devices=("cuda",))
    monkeypatch.setitem(operator.__dict__, "implementations", {"elsewhere": elsewhere})
    case = Case(operator="convolution", shape=TINY)
    with pytest.raises(Unsupported, match="elsewhere runs on cuda, not on cpu"):
        Subject.load(REGISTRY, case, "elsewhere")
