"""What a reader needs in order to trust a table or to make it again: gaps, parameters, counters, machine."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from opbench import units
from opbench.environment import Environment
from opbench.plain import plain
from opbench.report.columns import NAME_LIMIT
from opbench.report.device import ceiling_lines, gpu_words
from opbench.report.gpu import gpu_lines
from opbench.report.model import Block
from opbench.report.rows import Row
from opbench.report.words import listed, outcome_in_words
from opbench.results import Counts, Record
from opbench.settings import Measure
from opbench.store import Run

REASON_LIMIT = 500
SHOWN = 3
"""Cases named for one reason; the others are counted, and stand in the tables."""


def alerts(run: Run) -> tuple[str, ...]:
    """What a reader must know before the first number."""
    found = list(run.warnings)
    if run.missing:
        resume = shlex.join(["opbench", "run", "--resume", str(run.directory)])
        found.append(f"{_of(len(run.missing), run.header.plan)} missing: run {resume}")
    flags = Counter(flag for record in run.records for flag in getattr(record.outcome, "flags", ()))
    found += [f"{_of(number, run.records)} flagged {flag}" for flag, number in flags.items()]
    return tuple(map(plain, found))


def _of(number: int, records: Sequence[object]) -> str:
    return f"{number} of {len(records)} records {'is' if number == 1 else 'are'}"


def appendix(run: Run, rows: Sequence[Row]) -> tuple[Block, ...]:
    """The blocks below the legend; one without lines is left out."""
    blocks = (
        Block(title="Not measured", lines=_not_measured(run.records)),
        Block(title="Parameters", lines=_parameters(rows)),
        Block(title="Counters", lines=_counters(run.records)),
        Block(title="Times on the GPU", lines=gpu_lines(rows)),
        *(
            Block(title=f"Ceilings of {each.name}", lines=ceiling_lines(each))
            for each in run.header.environment.ceilings
        ),
        Block(title="Machine", lines=_machine(run.header.environment, run.header.measure)),
    )
    return tuple(block for block in blocks if block.lines)


def _not_measured(records: Iterable[Record]) -> tuple[str, ...]:
    """Each operator and reason once, with the cases it concerns."""
    cases: dict[str, list[str]] = {}
    for record in records:
        if record.status != "measured":
            line = f"{plain(record.name, NAME_LIMIT)}: {outcome_in_words(record.outcome, REASON_LIMIT)}"
            cases.setdefault(line, []).append(record.case.id)
    return tuple(f"{line} ({_some(ids)})" for line, ids in cases.items())


def _parameters(rows: Iterable[Row]) -> tuple[str, ...]:
    """All values that each operator ran with, defaults included."""
    taken: dict[str, dict[str, dict[str, None]]] = {}
    for row in rows:
        for parameter, value in sorted(row.params.items()):
            values = taken.setdefault(plain(row.record.case.name, NAME_LIMIT), {}).setdefault(parameter, {})
            values[str(value)] = None
    return tuple(
        f"{operator}: " + plain("; ".join(f"{parameter} = {', '.join(values)}" for parameter, values in found.items()))
        for operator, found in taken.items()
    )


def _counters(records: Iterable[Record]) -> tuple[str, ...]:
    """How the counters agree: each statement once, with the operators it is true of."""
    names: dict[str, dict[str, None]] = {}
    for record in records:
        if record.counts and record.counts.agreement:
            statement = plain(_agreement(record.counts), REASON_LIMIT)
            names.setdefault(statement, {})[plain(record.name, NAME_LIMIT)] = None
    return tuple(f"{statement}: {', '.join(known)}" for statement, known in names.items())


def _agreement(counts: Counts) -> str:
    """'formula and torch agree (fvcore: counts forwards only)', or how they differ."""
    exact = [counted.source for counted in counts.counters if counted.macs is not None and not counted.unknown]
    silent = [
        f"{counted.source}: {counted.note}" for counted in counts.counters if counted.macs is None and counted.note
    ]
    statement = f"{listed(exact)} agree" if counts.agreement == "agree" else counts.agreement
    return statement + (f" ({'; '.join(silent)})" if silent else "")


def _machine(environment: Environment, measure: Measure) -> tuple[str, ...]:
    graphics = map(gpu_words, environment.gpus)
    facts = {
        "processor": f"{environment.processor}, {environment.capability}",
        "cores": f"{_known(environment.physical_cores)} physical, {_known(environment.logical_cores)} logical, "
        f"{environment.usable_cores} usable; SMT {_switch(environment.smt)}; governor {_known(environment.governor)}",
        "threads": ", ".join(map(str, measure.threads)) if measure.device == "cpu" else "",
        "caches": ", ".join(f"{level} {units.bytes_(size)}" for level, size in environment.caches.items()),
        "clock": "" if environment.clock_mhz is None else f"{environment.clock_mhz:.0f} MHz at the start",
        "memory": units.bytes_(environment.memory_bytes),
        "GPU": "; ".join(graphics) + (f"; driver {environment.driver}" if environment.driver else ""),
        "noise": _noise(environment, measure),
        "system": f"{environment.system} on {environment.host}, Python {environment.python}",
        "versions": _pairs(environment.versions),
        "settings": _pairs(environment.settings),
        "variables": _pairs(environment.variables),
        "seed": str(measure.seed),
        "commit": environment.commit or "",
        "taken": environment.captured,
        "command": shlex.join(environment.command),
    }
    return tuple(f"{fact}: {plain(text)}" for fact, text in facts.items() if text)


def _noise(environment: Environment, measure: Measure) -> str:
    pressure = environment.pressure
    waiting = "" if pressure is None else f", {units.percent(pressure)} of the time a task waited for a processor"
    state = "quiet" if environment.noise is None else "others used the machine"
    asked = "noise was allowed" if measure.allow_noisy else "noise was not allowed"
    return f"{state} at the start (load {environment.load:.2f}{waiting}); {asked}"


def _known(value: object) -> str:
    return "unknown" if value is None else str(value)


def _switch(on: bool | None) -> str:
    return {True: "on", False: "off", None: "unknown"}[on]


def _pairs(mapping: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in mapping.items())


def _some(ids: Sequence[str]) -> str:
    """The first few names, and how many more."""
    rest = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return plain(", ".join(ids[:SHOWN]), REASON_LIMIT) + rest
