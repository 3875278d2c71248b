"""What tells several runs apart: a short label for each, and all differences of what they were taken on and how."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations

from opbench import units
from opbench.environment import Environment, Gpu
from opbench.plain import plain
from opbench.store import Run

LABEL_LIMIT = 48
DIFFERENCES_LIMIT = 1200


def labels(runs: Sequence[Run]) -> tuple[str, ...]:
    """The fewest facts that differ in all runs, the most telling first; numbers where nothing tells them apart."""
    facts = [list(map(plain, each)) for each in zip(*map(_facts, runs), strict=True)]
    telling = [texts for texts in facts if len(set(texts)) > 1 and all(texts)]
    for number in range(1, len(telling) + 1):
        for chosen in combinations(telling, number):
            found = [plain(", ".join(texts), LABEL_LIMIT) for texts in zip(*chosen, strict=True)]
            if len(set(found)) == len(found):
                return tuple(found)
    return tuple(f"run {number}" for number, _ in enumerate(runs, start=1))


def kind(runs: Sequence[Run]) -> str:
    """What the runs are, as a title says it: 'machines', 'devices', or just 'runs'."""
    if len({hardware(run) for run in runs}) < len(runs):
        return "runs"
    return "devices" if len({run.header.measure.device for run in runs}) > 1 else "machines"


def hardware(run: Run) -> str:
    """Name of what the run measured on."""
    environment = run.header.environment
    on_gpu = run.header.measure.device == "cuda"
    name = environment.gpus[0].name if on_gpu and environment.gpus else environment.processor
    return name or "unknown hardware"


def differences(runs: Sequence[Run]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """In which respects the runs differ, and for each run what it is in these: ('commit 0123456789ab; date …', …)."""
    facts = [_all_facts(run) for run in runs]
    respects: dict[str, None] = {}
    texts: list[list[str]] = [[] for _ in runs]
    for respect, name in dict.fromkeys(key for each in facts for key in each):
        values = [each.get((respect, name), "") for each in facts]
        if len(set(values)) > 1:
            respects[respect] = None
            for of_run, value in zip(texts, values, strict=True):
                of_run.append(f"{name} {value}".strip() if value else f"no {name}")
    return tuple(respects), tuple(plain("; ".join(of_run), DIFFERENCES_LIMIT) for of_run in texts)


def _facts(run: Run) -> tuple[str, ...]:
    """What may become a label; the hardware first, for no other difference weighs as much."""
    header, environment = run.header, run.header.environment
    return (
        hardware(run),
        f"{environment.usable_cores} cores" if header.measure.device == "cpu" else f"driver {environment.driver}",
        f"torch {environment.versions.get('torch', 'unknown')}",
        f"opbench {environment.versions.get('opbench', 'unknown')}",
        f"commit {_short_commit(environment.commit)}",
        ", ".join(header.overrides) or "no overrides",
        environment.host,
        environment.captured[:10],
        environment.captured[:16].replace("T", " "),
        environment.captured[:19].replace("T", " "),
        str(run.directory),
    )


def _short_commit(commit: str | None) -> str:
    match = re.fullmatch(r"([0-9a-f]{7})[0-9a-f]*(\+?)", commit or "")
    return match[1] + match[2] if match else commit or "unknown"


def _all_facts(run: Run) -> Mapping[tuple[str, str], str]:
    """What may change a time, by respect and name; a name that says nothing is empty."""
    header, environment = run.header, run.header.environment
    measure = {name: _listed(value) for name, value in header.measure.model_dump().items()}
    return {
        ("device", "on"): measure.pop("device"),
        ("GPU", "GPU"): " and ".join(map(_gpu, environment.gpus)),
        ("GPU", "driver"): environment.driver or "",
        ("processor", ""): f"{environment.processor}, {environment.capability}",
        ("processor", "cores"): _cores(environment),
        ("processor", "governor"): environment.governor or "unknown",
        ("memory", "memory"): units.bytes_(environment.memory_bytes),
        ("system", ""): f"{environment.system}, Python {environment.python}",
        ("host", "host"): environment.host,
        **{("versions", name): version for name, version in environment.versions.items()},
        ("commit", "commit"): environment.commit or "",
        **{("settings", name): value for name, value in environment.settings.items()},
        **{("variables", name): value for name, value in environment.variables.items()},
        ("suite", "suite"): header.title,
        ("suite", "from"): header.suite_path,
        ("suite", "overrides"): ", ".join(header.overrides),
        ("operators", "operators from"): ", ".join(header.operator_paths),
        **{("measure settings", name.replace("_", " ")): value for name, value in measure.items()},
        # What to do about it is for whoever measures.
        ("noise", "noise"): (environment.noise or "quiet").partition(";")[0],
        ("date", "taken"): environment.captured,
    }


def _gpu(gpu: Gpu) -> str:
    """What stays as it is while the GPU is used; clocks move."""
    facts = [
        f"{gpu.name} {units.bytes_(gpu.memory_bytes)}",
        gpu.max_sm_clock_mhz and f"SM up to {gpu.max_sm_clock_mhz} MHz",
        gpu.power_limit_watts and f"limit {gpu.power_limit_watts:.0f} W",
        "" if gpu.ecc is None else f"ECC {'on' if gpu.ecc else 'off'}",
        "" if gpu.mig is None else f"MIG {'on' if gpu.mig else 'off'}",
    ]
    return ", ".join(fact for fact in facts if fact)


def _cores(environment: Environment) -> str:
    physical = "unknown" if environment.physical_cores is None else environment.physical_cores
    return f"{physical} physical, {environment.usable_cores} usable"


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
