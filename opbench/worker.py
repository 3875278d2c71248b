"""What a child process does for a case: forecast, count, check, time, measure memory. Plain data in, plain data out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from opbench import check as gate
from opbench.cases import Case, ParamValue
from opbench.errors import PluginError, Unsupported
from opbench.measure import counters, flops, launches, memory, processor, replays, steps, tracker
from opbench.measure.device_clock import DeviceClock
from opbench.measure.stop import StopRule
from opbench.measure.timers import HostTimer, Timer, device_clock
from opbench.params import resolved
from opbench.policies import policies_of
from opbench.registry import Registry
from opbench.results import Counts, Launches, Memory, Policy, Sampling
from opbench.settings import Measure
from opbench.subject import META, Subject, frozen_copy
from opbench.work import Cost


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


def forecast(registry: Registry, case: Case, runs: bool = True) -> Forecast:
    """Foresee a case on meta tensors, which take no memory; of one that never `runs`, its parameters alone."""
    subject = Subject.load(registry, case)
    if not runs:
        _refuse(subject)
    return Forecast(
        params={name: _plain(value) for name, value in resolved(subject.params).items()},
        peak_bytes=_peak_bytes(subject) if runs else None,
        macs=_macs(subject) if runs else None,
    )


def count(registry: Registry, case: Case) -> Counts:
    """Count a case with every counter.

    Raises:
        PluginError: the plugin's formula gives something else than a cost.
    """
    subject = Subject.load(registry, case)
    if subject.network is None:
        _cost(subject)  # The counters take its numbers as they are.
    return counters.count(subject)


def list_launches(registry: Registry, case: Case, implementation: str, device: str = "cpu") -> Launches | None:
    """List what an implementation launches in one pass of a core or layer; None where it cannot be known."""
    if case.network is not None or implementation == "compile":
        return None
    subject = Subject.load(registry, case, implementation, torch.device(device))
    offered = subject.operator.implementations.get(implementation)
    return launches.of(subject, runs_on_cpu=offered is None or "cpu" in offered.devices)


def check(registry: Registry, case: Case, implementation: str, device: str = "cpu") -> list[gate.Comparison]:
    """Hold an implementation's core to the float64 reference on the case's own inputs.

    Of a layer or network, the core is checked on the very tensors it is fed there, and the output must be finite.

    Raises:
        Unsupported: the network can only be counted.
    """
    torch.set_num_threads(processor.physical_cores())
    subject = Subject.load(registry, case, implementation, torch.device(device))
    if subject.network is not None:
        subject.network.require_measurable()
    if case.scope == "core":
        return gate.check(subject.operator, subject.core, subject.params, subject.core_inputs())
    with torch.no_grad():
        fed = _fed(subject)
        output = subject.bundle().forward()
    rows = [row for params, tensors in fed for row in gate.check(subject.operator, subject.core, params, tensors)]
    if not bool(output.isfinite().all()):
        rows.append(gate.Comparison(quantity=case.scope, error=math.nan, budget=0.0, where="its output is not finite"))
    return rows


def time(registry: Registry, case: Case, implementation: str, measure: Measure, process: int) -> Timed:
    """Time a case in this process under every policy, then check the timed call's results once more.

    On a GPU, calls too short for the host to keep up with are then replayed as graphs as well.
    """
    subject = Subject.load(registry, case, implementation, torch.device(measure.device))
    policies, rule = policies_of(measure), _rule(measure)
    timer = _timer(policies)
    with torch.set_grad_enabled(case.pass_ == "training"), timer.current():
        ring = [subject.bundle(measure.seed)]
        if "cold" in measure.cache:
            ring += subject.copies(timer.cold_sets(ring[0].bytes) - 1, measure.seed + 1)
        steps = [subject.step(bundle) for bundle in ring]
        # Every process starts with another policy, so that none always has the fresh or the worn-in process.
        policies = policies[process % len(policies) :] + policies[: process % len(policies)]
        torch.set_num_threads(policies[0].threads)
        first_seconds, before = timer.once(steps[0])
        before = frozen_copy(before)
        samplings = []
        for policy in policies:
            torch.set_num_threads(policy.threads)
            cold = policy.cache == "cold"
            calls = steps if cold else steps[:1]
            samplings.append((policy, timer.sample(calls, rule, cold=cold, first_seconds=first_seconds)))
        after = frozen_copy(steps[0]())
        expected = _expected(subject, measure.seed, before)
        wrong = _compared(case, after, expected)
        # Last, because what cannot be recorded may leave the device unfit for more.
        if isinstance(timer, DeviceClock):
            samplings, replayed = replays.added(samplings, timer, steps, rule)
            wrong = wrong or next(filter(None, (_compared(case, results, expected) for results in replayed)), None)
    return Timed(
        samplings=tuple(samplings),
        deterministic=all(torch.equal(one, other) for one, other in zip(before, after, strict=True)),
        wrong=wrong,
    )


def measure_memory(registry: Registry, case: Case, implementation: str, measure: Measure) -> tuple[Memory, ...]:
    """Measure what one call of a case holds."""
    torch.set_num_threads(policies_of(measure)[0].threads)
    device = torch.device(measure.device)
    bundle = Subject.load(registry, case, implementation, device).bundle(measure.seed)
    compiled = implementation == "compile"
    return memory.measure(bundle.forward, bundle.inputs, bundle.parameters, case.pass_, device, compiled=compiled)


def _expected(subject: Subject, seed: int, before: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What a timed call's results are held to.

    Of a network, what they were before sampling: its cores have been held to float64 one by one, and through fifty
    layers the roundings of two implementations grow beyond what any one of them may lose.
    """
    if subject.network is not None:
        return before
    return subject.step(subject.bundle(seed, core=subject.operator.reference))()


def _fed(subject: Subject, device: torch.device | None = None) -> list[tuple[Any, dict[str, Tensor]]]:
    """The parameters and tensors of every call to the core within a layer; of a network, of one call of each kind.

    Noted with the reference as the core: an implementation might overwrite what it is to be checked on.
    """
    calls: list[tuple[Any, tuple[Tensor, ...]]] = []
    operator, scope = subject.case.operator, subject.case.scope
    module = subject.module(gate.shared_inputs(subject.operator.reference, calls), device=device)
    calls.clear()  # What has settled the norms of a network is not its case.
    module(subject.feature_map(device=device))
    if not calls:
        raise PluginError(f"{operator}: the {scope} never calls its core, so its implementations cannot differ")
    if subject.network is not None:
        # Blocks of a stage have the same parameters and shapes; to check each of them would take hours.
        kinds = {(repr(call[0]), *map(_layout, call[1])): call for call in calls}
        calls = list(kinds.values())
    fed = []
    for params, tensors in calls:
        names = subject.core_names(module, params)
        if len(tensors) != len(names):
            words = f"the {scope} feeds its core {len(tensors)} tensors, inputs gives {len(names)}: {', '.join(names)}"
            raise PluginError(f"{operator}: {words}")
        fed.append((params, dict(zip(names, tensors, strict=True))))
    return fed


def _layout(tensor: Tensor) -> tuple[torch.Size, tuple[int, ...]]:
    return tensor.shape, tensor.stride()


def _timer(policies: Sequence[Policy]) -> Timer:
    if policies[0].device == "cuda":
        return device_clock()
    return HostTimer(max(policy.threads for policy in policies))


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


def _plain(value: object) -> ParamValue:
    """A parameter as a run can store it; a plugin's own types, and numbers that JSON does not know, become text."""
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value).encode(errors="backslashreplace").decode()


def _refuse(subject: Subject) -> None:
    """Raise Unsupported for a case that its operator does not take, so that it is skipped for that reason."""
    try:
        subject.refuse()
    except Unsupported:
        raise
    except Exception:
        return  # The plugin cannot run on meta tensors, or is at fault: counting will tell.


def _macs(subject: Subject) -> int | None:
    try:
        if subject.network is not None:
            if subject.operator.cost is None:
                return None
            return steps.macs(steps.of(subject), subject.case.pass_).dense
        cost = _cost(subject)
    except Unsupported:
        raise
    except Exception:
        return None  # Counting the case will say what is wrong with its formula.
    if cost is None:
        return None
    work = cost.core if subject.case.scope == "core" else cost.layer
    return work.of_pass(subject.case.pass_).dense


def _cost(subject: Subject) -> Cost | None:
    """What the plugin's formula says of a case; None where it has none."""
    if subject.operator.cost is None:
        return None
    cost = subject.operator.cost(subject.params, subject.case.shape)
    numbers = _numbers(cost) if isinstance(cost, Cost) else [cost]
    wrong = [number for number in numbers if not isinstance(number, int)]
    if wrong:
        raise PluginError(f"{subject.case.operator}: cost must give a Cost of whole numbers, got {wrong[0]!r}")
    return cost


def _numbers(cost: Cost) -> list[object]:
    phases = [phase for work in (cost.core, cost.layer) for phase in (work.forward, work.backward)]
    return [cost.parameters, *(number for macs in phases for number in (macs.dense, macs.in_bounds))]


def _peak_bytes(subject: Subject) -> int | None:
    """Foresee the larger of two peaks: one pass over the case's buffers, and the check with its float64 results."""
    try:
        bundle = subject.bundle(device=META)
        one_pass = tracker.peak_bytes_on_meta(lambda: flops.run_pass(bundle.forward, subject.case.pass_))
        if subject.network is None:
            checked = [(subject.params, subject.core_inputs(device=META))]
        else:
            checked = _fed(subject, META)
        widest = max(_peak_of_check(subject, params, tensors) for params, tensors in checked)
    except Unsupported:
        raise
    except Exception:
        return None  # The plugin cannot run on meta tensors; only the child's memory limit protects.
    # All that is to be checked has been noted before the first of it is.
    noted = sum(tensor.nbytes for _, tensors in checked[1:] for tensor in tensors.values())
    return bundle.bytes + noted + max(one_pass, widest)


def _peak_of_check(subject: Subject, params: Any, tensors: Mapping[str, Tensor]) -> int:
    upcast = {name: gate.float64(tensor) for name, tensor in tensors.items()}
    widest = tracker.peak_bytes_on_meta(lambda: gate.evaluate(subject.operator.reference, params, upcast))
    # The check holds its inputs in three forms, and four sets of results, beside the widest run's own peak.
    return widest + 4 * sum(tensor.nbytes for tensor in upcast.values())
