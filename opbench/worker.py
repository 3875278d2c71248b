"""What a child process does for a case: forecast, count, check, time, measure memory. Plain data in, plain data out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from opbench import check as gate
from opbench.cases import Case, ParamValue
from opbench.measure import clock, counters, flops, memory, processor, tracker
from opbench.measure.stop import StopRule
from opbench.params import resolved
from opbench.registry import Registry
from opbench.results import Counts, Memory, Policy, Sampling
from opbench.settings import Measure
from opbench.subject import META, Subject, frozen_copy


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What is known of a case before any of its memory is allocated."""

    params: Mapping[str, ParamValue]
    """Every parameter, defaults included."""
    peak_bytes: int | None
    """Most that its most demanding step, the check in float64, will hold; None when it cannot be known."""
    macs: int | None
    """Multiply-accumulates of the pass, dense, by the plugin's formula."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What one process measured."""

    samplings: tuple[tuple[Policy, Sampling], ...]
    deterministic: bool
    """Whether the same call gave the same bits before and after sampling."""
    wrong: gate.Comparison | None
    """How the timed call's results differ from the reference after sampling, if they do."""


def forecast(registry: Registry, case: Case) -> Forecast:
    """Foresee a case on meta tensors, which take no memory."""
    subject = Subject.load(registry, case)
    cost = None if subject.operator.cost is None else subject.operator.cost(subject.params, case.shape)
    work = cost and (cost.core if case.scope == "core" else cost.layer)
    return Forecast(
        params=resolved(subject.params),
        peak_bytes=_peak_bytes(subject),
        macs=work.of_pass(case.pass_).dense if work else None,
    )


def count(registry: Registry, case: Case) -> Counts:
    """Count a case with every counter."""
    return counters.count(Subject.load(registry, case))


def check(registry: Registry, case: Case, implementation: str) -> list[gate.Comparison]:
    """Hold an implementation's core to the float64 reference on the case's own inputs.

    Of a layer, the core is checked on the very tensors the layer feeds it, and the layer's output must be finite.
    """
    torch.set_num_threads(processor.physical_cores())
    subject = Subject.load(registry, case, implementation)
    if case.scope == "core":
        return gate.check(subject.operator, subject.core, subject.params, subject.core_inputs())
    fed: list[tuple[Any, tuple[Tensor, ...]]] = []
    with torch.no_grad():
        output = subject.bundle(core=gate.shared_inputs(subject.core, fed)).forward()
    names = list(subject.core_inputs(device=META))
    rows = [
        row
        for params, tensors in fed
        for row in gate.check(subject.operator, subject.core, params, dict(zip(names, tensors, strict=True)))
    ]
    if not rows:
        raise RuntimeError(f"the layer of {case.operator} never calls its core, so its implementations cannot differ")
    if not bool(output.isfinite().all()):
        rows.append(gate.Comparison(quantity="layer", error=math.nan, budget=0.0, where="its output is not finite"))
    return rows


def time(registry: Registry, case: Case, implementation: str, measure: Measure, process: int) -> Timed:
    """Time a case in this process under every policy, then check the timed call's results once more."""
    subject = Subject.load(registry, case, implementation)
    with torch.set_grad_enabled(case.pass_ == "training"):
        policies = _policies(measure)
        ring = [subject.bundle(measure.seed)]
        copies = clock.sets_for_cold(
            ring[0].bytes, processor.last_level_cache_bytes(max(policy.threads for policy in policies))
        )
        if "cold" in measure.cache:
            ring += subject.copies(copies - 1, measure.seed + 1)
        steps = [subject.step(bundle) for bundle in ring]
        # Every process starts with another policy, so that none always has the fresh or the worn-in process.
        policies = policies[process % len(policies) :] + policies[: process % len(policies)]
        torch.set_num_threads(policies[0].threads)
        first_seconds, before = clock.once(steps[0])
        before = frozen_copy(before)
        samplings = []
        for policy in policies:
            torch.set_num_threads(policy.threads)
            calls = steps if policy.cache == "cold" else steps[:1]
            samplings.append((policy, clock.sample(calls, _rule(measure), first_seconds=first_seconds)))
        after = frozen_copy(steps[0]())
        expected = subject.step(subject.bundle(measure.seed, core=subject.operator.reference))()
    return Timed(
        samplings=tuple(samplings),
        deterministic=all(torch.equal(one, other) for one, other in zip(before, after, strict=True)),
        wrong=_compared(case, after, expected),
    )


def measure_memory(registry: Registry, case: Case, implementation: str, measure: Measure) -> tuple[Memory, ...]:
    """Measure what one call of a case holds."""
    torch.set_num_threads(_policies(measure)[0].threads)
    subject = Subject.load(registry, case, implementation)
    bundle = subject.bundle(measure.seed)
    compiled = implementation == "compile"
    return memory.measure(bundle.forward, bundle.inputs, bundle.parameters, case.pass_, compiled=compiled)


def _policies(measure: Measure) -> list[Policy]:
    threads = [processor.physical_cores() if count == "physical" else count for count in measure.threads]
    return [
        Policy(cache=cache, threads=count, device=measure.device)
        for count in dict.fromkeys(threads)
        for cache in dict.fromkeys(measure.cache)
    ]


def _rule(measure: Measure) -> StopRule:
    return StopRule(precision=measure.precision, max_samples=measure.max_samples, max_seconds=measure.max_seconds)


def _compared(case: Case, results: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> gate.Comparison | None:
    """Compare a timed call's results with the reference's in the same dtype, which the gate has held to float64.

    Of a layer, the output and the gradient of its input: a parameter in front of a norm may have a gradient that is
    zero but for rounding, and two roundings never agree.
    """
    compared = len(results) if case.scope == "core" else 2
    for index, (result, truth) in enumerate(zip(results[:compared], expected[:compared], strict=True)):
        row = gate.agree("timed forward" if index == 0 else f"timed gradient {index}", result, truth)
        if not row.passed:
            return row
    return None


def _peak_bytes(subject: Subject) -> int | None:
    """Foresee the larger of two peaks: one pass over the case's buffers, and the check with its float64 results."""
    try:
        bundle = subject.bundle(device=META)
        core_inputs = subject.core_inputs(device=META)
        upcast = {name: gate.float64(tensor) for name, tensor in core_inputs.items()}
        one_pass = tracker.peak_bytes_on_meta(lambda: flops.run_pass(bundle.forward, subject.case.pass_))
        widest = tracker.peak_bytes_on_meta(lambda: gate.evaluate(subject.operator.reference, subject.params, upcast))
    except (NotImplementedError, RuntimeError):
        return None  # The plugin cannot run on meta tensors; only the child's memory limit protects.
    results = sum(tensor.nbytes for tensor in upcast.values())
    # The check holds its inputs in three forms, and four sets of results, beside the widest run's own peak.
    return bundle.bytes + max(one_pass, widest + 4 * results)
