"""What is foreseen of a case on tensors without storage, against what the same steps hold on real ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from opbench import forecast, worker
from opbench.cases import Case, Nchw, Pass, Scope
from opbench.measure.tracker import LiveStorages
from opbench.registry import Registry
from opbench.settings import Measure, Metric
from opbench.subject import Subject
from opbench.worker import Forecast

REGISTRY = Registry.discover()
SHAPE = Nchw(2, 32, 20, 20)
PASSES: tuple[Pass, ...] = ("forward", "training")


def held_by(step: Callable[[], object]) -> int:
    """Most bytes of tensors that a step holds."""
    storages = LiveStorages()
    with storages:
        step()
    return storages.found_bytes + storages.phase_peak_bytes()


@pytest.mark.parametrize("operator", ["convolution", "involution"])
@pytest.mark.parametrize("scope", ["core", "layer"])
def test_memory_is_foreseen_to_30_percent(operator: str, scope: Scope, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    case = Case(operator=operator, shape=SHAPE, scope=scope, pass_="training")
    foreseen = worker.forecast(REGISTRY, case).peak_bytes
    held = held_by(lambda: worker.check(REGISTRY, case, "reference"))
    assert foreseen == pytest.approx(held, rel=0.3)


@pytest.mark.parametrize("pass_", PASSES)
def test_what_is_foreseen_covers_one_timed_call(pass_: Pass) -> None:
    for operator in ("convolution", "involution"):
        case = Case(operator=operator, shape=SHAPE, pass_=pass_)
        foreseen = worker.forecast(REGISTRY, case).peak_bytes
        with torch.set_grad_enabled(pass_ == "training"):
            subject = Subject.load(REGISTRY, case)
            held = held_by(subject.step(subject.bundle()))
        assert foreseen is not None
        assert foreseen >= held


def test_every_parameter_is_told_with_its_default() -> None:
    case = Case(operator="convolution", shape=SHAPE, params={"kernel_size": 5})
    params = worker.forecast(REGISTRY, case).params
    assert params["kernel_size"] == 5
    assert params["stride"] == 1


def test_work_is_that_of_the_formula() -> None:
    """A 3x3 convolution of 32 to 32 channels over 2 images of 20x20 pixels, forward, and twice that backward."""
    macs = 2 * 32 * 32 * 9 * 20 * 20
    forward, training = (Case(operator="convolution", shape=SHAPE, pass_=pass_) for pass_ in PASSES)
    assert worker.forecast(REGISTRY, forward).macs == macs
    assert worker.forecast(REGISTRY, training).macs == 3 * macs


def test_more_to_measure_is_foreseen_to_take_longer() -> None:
    case = Forecast(params={}, peak_bytes=10**9, macs=10**10)
    once = Measure(processes=1)
    counting = forecast.estimate_seconds(case, once, ["counts"])
    checking = forecast.estimate_seconds(case, once, ["memory"])
    timing = forecast.estimate_seconds(case, once, ["memory", "latency"])
    assert 0 < counting < checking < timing
    twice = forecast.estimate_seconds(case, Measure(processes=2), ["memory", "latency"])
    assert twice - checking == pytest.approx(2 * (timing - checking))


def test_a_case_that_nothing_is_known_of_still_takes_its_processes() -> None:
    unknown = Forecast(params={}, peak_bytes=None, macs=None)
    assert forecast.estimate_seconds(unknown, Measure(), ["counts", "latency", "memory"]) > 0


def test_heavy_work_is_foreseen_to_take_a_gpu_less_than_a_processor() -> None:
    heavy = Forecast(params={}, peak_bytes=10**10, macs=10**12)
    on_cpu, on_gpu = Measure(device="cpu"), Measure(device="cuda")
    metrics: list[Metric] = ["latency", "memory"]
    assert forecast.estimate_seconds(heavy, on_gpu, metrics) < forecast.estimate_seconds(heavy, on_cpu, metrics)


def test_threads_do_not_multiply_the_time_on_a_gpu() -> None:
    case = Forecast(params={}, peak_bytes=10**9, macs=10**10)
    one, three = (Measure(device="cuda", threads=threads) for threads in ((1,), (1, 2, 4)))
    assert forecast.estimate_seconds(case, one, ["latency"]) == forecast.estimate_seconds(case, three, ["latency"])
