"""What only a real device can show of its stream; all of it observed in one process, which may touch CUDA."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest

from opbench.measure.cuda_stream import compiled_graphs

Facts = dict[str, Any]


def test_nothing_was_compiled_where_torch_compile_was_never_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch._dynamo.utils", raising=False)
    assert compiled_graphs() == 0


def test_compiled_graphs_are_counted() -> None:
    import torch

    @torch.compile(backend="eager", dynamic=False)
    def doubled(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    before = compiled_graphs()
    for size in (2, 2, 3):
        doubled(torch.ones(size))
    assert compiled_graphs() - before == 2


def observe() -> Facts:
    """Everything that the tests below ask, as plain data."""
    import torch

    from opbench.errors import PluginError
    from opbench.measure.cuda_stream import look
    from opbench.measure.stop import StopRule
    from opbench.measure.timers import device_clock

    clock = device_clock()
    stream = clock.stream
    rule = StopRule(max_seconds=0.5, max_samples=200)
    facts: Facts = {"cache_bytes": stream.cache_bytes, "looked": look() is not None}
    with torch.no_grad(), stream.current():

        def between_marks(work: Callable[[], object]) -> float:
            begin = stream.mark()
            work()
            end = stream.mark()
            stream.wait()
            return stream.seconds(begin, end)

        facts["held_seconds"] = between_marks(lambda: stream.hold(0.05))
        stream.hold(0.05)
        facts["held"] = [stream.is_held()]
        stream.wait()
        facts["held"].append(stream.is_held())

        # A fifth of the cache: stays there when hot.
        x = torch.ones(stream.cache_bytes // 5 // 4, device="cuda")
        y = torch.empty_like(x)
        read = [lambda: torch.mul(x, 2.0, out=y)]
        for name, cold in (("hot", False), ("cold", True)):
            sampling = clock.sample(read, rule, cold=cold, first_seconds=0.0)
            facts[name] = median(sampling.seconds)
            facts[f"{name} despite"] = sampling.despite

        a = torch.randn(128, 128, device="cuda")
        products = [lambda: a @ a]
        launched = clock.sample(products, rule, cold=False, first_seconds=0.0)
        replayed, result = clock.replay(products, rule, cold=False, launched=launched)
        stream.wait()
        facts["graph"] = (median(launched.seconds), median(replayed.seconds), torch.equal(result, a @ a))
        facts["host_seconds"] = median(launched.host_seconds)

        other = torch.cuda.Stream()

        def elsewhere() -> None:
            with torch.cuda.stream(other):
                torch.cuda._sleep(1_000_000)

        try:
            clock.sample([elsewhere], rule, cold=False, first_seconds=0.0)
        except PluginError as error:
            facts["elsewhere"] = str(error)

        waiting = clock.sample([lambda: float(a.sum())], rule, cold=False, first_seconds=0.0)
        facts["waiting"] = waiting.despite
        try:
            clock.replay([lambda: float(a.sum())], rule, cold=False, launched=waiting)
        except RuntimeError as error:
            facts["not recorded"] = str(error)
        stream.wait()
        facts["alive"] = float((a * 0).sum())
    return facts


@pytest.fixture(scope="module")
def facts() -> Facts:
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    observed: Facts = json.loads(done.stdout)
    return observed


@pytest.mark.gpu
def test_a_blocker_lasts_about_as_long_as_asked(facts: Facts) -> None:
    assert facts["held"] == [True, False]
    # The clock may be another than when it was calibrated.
    assert 0.02 < facts["held_seconds"] < 0.2


@pytest.mark.gpu
def test_the_cache_has_a_size_and_the_device_a_state(facts: Facts) -> None:
    assert facts["cache_bytes"] > 1 << 20
    assert facts["looked"]


@pytest.mark.gpu
def test_what_a_cache_holds_is_read_faster_than_what_was_evicted(facts: Facts) -> None:
    assert facts["hot"] < facts["cold"]
    assert facts["cold despite"] == facts["hot despite"] == []


@pytest.mark.gpu
def test_a_graph_computes_the_same_no_slower_than_launched(facts: Facts) -> None:
    launched, replayed, same = facts["graph"]
    assert same
    assert 0 < replayed < 1.5 * launched
    assert facts["host_seconds"] > 0


@pytest.mark.gpu
def test_work_on_another_stream_is_refused(facts: Facts) -> None:
    assert "launch all work on that stream" in facts["elsewhere"]


@pytest.mark.gpu
def test_a_call_that_waits_is_neither_held_nor_recorded_and_breaks_nothing(facts: Facts) -> None:
    assert facts["waiting"] == ["not held"]
    assert facts["not recorded"]
    assert facts["alive"] == 0.0


if __name__ == "__main__":
    print(json.dumps(observe()))
