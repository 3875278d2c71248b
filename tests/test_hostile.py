"""A plugin that does its worst costs its own row, with a status and a reason; its neighbours are measured."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from opbench import store
from opbench.results import Failed, Record, Skipped, Wrong

if TYPE_CHECKING:
    from tests.conftest import Workshop

SMALL_AND_IMPATIENT = """
from opbench import probing
from opbench.measure import machine
machine.available_bytes = lambda: 1 << 29
probing.TIMEOUT_SECONDS = 5
"""
MEASURED = "measured"

# Name of the plugin: what it changes in an ordinary one, and what becomes of each implementation, as a pattern.
Plugins = dict[str, tuple[str, dict[str, str]]]


def alone(changes: str, ending: str) -> tuple[str, dict[str, str]]:
    """A plugin whose every row ends alike: it never got to offer another implementation."""
    return changes, {"reference": ending}


def rival(body: str, ending: str, reference: str = MEASURED) -> tuple[str, dict[str, str]]:
    """A plugin with a second implementation of the given body, which is not run on meta tensors."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"calls = []\n@other\ndef core(p, x, weight):\n{lines}", {"reference": reference, "other": ending}


ON_IMPORT: Plugins = {
    "segfaults": alone("ctypes.string_at(0)", r"crashed: signal 11 \(SIGSEGV\) at "),
    "hangs": alone("time.sleep(600)", "timed_out: no result after 5 s"),
    "aborts": alone("os.abort()", r"crashed: signal 6 \(SIGABRT\) at plugin\.py:\d+"),
    "leaves_at_once": alone("os._exit(0)", "crashed: exit status 0 without a result"),
    "leaves_politely": alone("sys.exit('enough')", r"failed: plugin\.py:\d+: SystemExit: enough"),
    "lacks_a_module": alone("import nonesuch", r"failed: .*/plugin\.py: ModuleNotFoundError: No module .*nonesuch"),
    "is_no_python": alone("def def", r"failed: .*/plugin\.py: SyntaxError: "),
    "raises": alone("raise ValueError('no luck')", r"failed: .*/plugin\.py: ValueError: no luck"),
    "raises_oddly": alone(
        "class Mute(Exception):\n    __str__ = None\nraise Mute", r"failed: .*/raises_oddly/plugin\.py: Mute$"
    ),
    "hoards": alone("hoard = [bytes(1 << 24) for _ in iter(int, 1)]", "out_of_memory: .*MemoryError"),
    "has_no_operator": alone("Operator = lambda **parts: None", r"failed: .*/plugin\.py: OPERATOR must be .* NoneType"),
    "forgets_to_name_it": alone("raise SystemExit if 0 else KeyboardInterrupt", "failed: .*KeyboardInterrupt"),
    "takes_no_such_part": alone("parts['colour'] = 'red'", r"failed: .*TypeError: .*colour"),
    "has_params_of_no_class": alone("parts['params'] = 3", "failed: .*TypeError: params must be a dataclass, got 3"),
    "kills_itself": alone("os.kill(os.getpid(), signal.SIGKILL)", r"crashed: signal 9 \(SIGKILL\)"),
    "prints": ("os.write(1, b'rubbish' * (1 << 20)); print('rubbish')", {"reference": MEASURED}),
    "changes_everything": (
        "torch.set_default_dtype(torch.float64)\nos.chdir('/')\nos.closerange(0, 3)\ndel sys.path[:]\n"
        "torch.manual_seed = None\nsignal.alarm(0)",
        {"reference": "failed: .*NoneType"},
    ),
    "dotted.name": alone("", r"failed: .*/dotted\.name: .*no dot"),
    "od'd näme [red]{}%s": ("", {"reference": MEASURED}),
}

IN_ITS_CORE: Plugins = {
    "segfaults": rival("ctypes.string_at(0)", r"crashed: signal 11 \(SIGSEGV\) at plugin\.py:\d+"),
    "hangs": rival("while True: pass", "timed_out: no result after 5 s"),
    "hoards": rival(
        "kept = []\nwhile True: kept.append(bytes(1 << 24))", r"out_of_memory: plugin\.py:\d+: MemoryError"
    ),
    "hoards_tensors": rival(
        "kept = []\nwhile True: kept.append(torch.empty(1 << 24))", "out_of_memory: .*can't allocate memory"
    ),
    "raises": rival("raise ValueError('no luck')", r"failed: plugin\.py:\d+: ValueError: no luck"),
    "raises_unprintably": rival(
        "raise ValueError('\\n\\x1b[31m\\ud800' + 'x' * 1000000)", r"failed: plugin\.py:\d+: ValueError: .{1,400}$"
    ),
    "raises_all_at_once": rival("raise BaseExceptionGroup('two', [ValueError(), SystemExit()])", "failed: .*two"),
    "declines": rival("raise Unsupported('only on Sundays')", "skipped: only on Sundays"),
    "declines_silently": rival("raise Unsupported", "skipped: it does not say why"),
    "leaves_at_once": rival("os._exit(0)", "crashed: exit status 0 without a result"),
    "leaves_politely": rival("sys.exit()", r"failed: plugin\.py:\d+: SystemExit"),
    "forks": rival("if not calls: calls.append(os.fork())\nreturn x * weight[:, None, None]", MEASURED),
    "prints": rival("os.write(2, b'rubbish' * (1 << 18))\nreturn x * weight[:, None, None]", MEASURED),
    "leaves_a_process": rival(
        "subprocess.Popen(['sleep', '86399'], start_new_session=True)\nreturn x * weight[:, None, None]", MEASURED
    ),
    "never_calls_its_core": alone(
        "class Layer(Layer):\n    def forward(self, x):\n        return x\nparts['layer'] = Layer",
        "failed: .*never calls its core",
    ),
    "needs_much": (
        "def much(p, x, weight):\n"
        "    return (x.unsqueeze(-1).expand(*x.shape, 1 << 40) * 1).sum(-1) * weight[:, None, None]\n"
        "parts['reference'] = other(much)",
        {
            "reference": "skipped: needs about .* TiB of memory, 461 MiB are free",
            "other": "skipped: needs about .* TiB",
        },
    ),
    "lays_out_much": alone(
        "class Layer(Layer):\n    def __init__(self, *given):\n        super().__init__(*given)\n"
        "        self.much = nn.Parameter(torch.zeros(1 << 40))\nparts['layer'] = Layer",
        "skipped: needs about .* TiB",
    ),
}

IN_ITS_NUMBERS: Plugins = {
    "wrong_shape": rival("return (x * weight[:, None, None])[..., 1:]", r"wrong: forward shape \[.*\] instead of \["),
    "wrong_dtype": rival("return (x * weight[:, None, None]).double()", "wrong: forward float64 instead of float32"),
    "wrong_values": rival("return x * weight[:, None, None] * 1.001", r"wrong: forward \["),
    "wrong_gradient": rival("return x * weight[:, None, None].detach()", "wrong: grad_weight it was not computed"),
    "slightly_wrong_gradient": rival(
        "half = weight[:, None, None]\nreturn x * (0.99 * half + 0.01 * half.detach())", r"wrong: grad_weight \["
    ),
    "wrong_later": rival(
        "calls.append(1)\nreturn x * weight[:, None, None] * (1 if len(calls) < 30 else 2)", "wrong: timed forward"
    ),
    "not_a_number": rival("return x * weight[:, None, None] * float('nan')", r"wrong: forward \[.*\] is not finite"),
    "not_a_number_at_all": alone(
        "def nan(p, x, weight):\n    return x * weight[:, None, None] * float('nan')\nparts['reference'] = nan",
        r"wrong: forward \[.*\] is not finite",
    ),
    "not_written": rival("return torch.empty_like(x) + 0 * x * weight[:, None, None]", "wrong: forward .* not finite"),
    "partly_written": rival(
        "y = torch.empty_like(x)\ny[..., 1:] = (x * weight[:, None, None])[..., 1:]\nreturn y",
        "wrong: forward .* not finite",
    ),
    "overwrites_its_input": rival(
        "y = x.clone() * weight[:, None, None]\nx.data.zero_()\nreturn y", "wrong: x the core overwrote it"
    ),
    "returns_nothing": rival("return None", "failed: .*NoneType"),
    "returns_a_list": rival("return [x * weight[:, None, None]]", "failed: .*list"),
}

IN_ITS_PARTS: Plugins = {
    "inputs_are_none": alone("parts['inputs'] = lambda p, shape, make: None", "failed: .*tensors by name, got None"),
    "inputs_are_words": alone(
        "parts['inputs'] = lambda p, shape, make: {'x': 'y'}", "failed: .*tensors by name, got {'x': 'y'}"
    ),
    "inputs_are_missing": alone("parts['inputs'] = lambda p, shape, make: {}", "failed: .*tensors by name, got {}"),
    "inputs_are_too_few": alone(
        "parts['inputs'] = lambda p, shape, make: {'x': make.normal(*shape)}",
        "failed: inputs_are_too_few: the layer feeds its core 2 tensors, inputs gives 1: x",
    ),
    "inputs_raise": alone(
        "def inputs(p, shape, make):\n    raise LookupError('no luck')\nparts['inputs'] = inputs",
        r"failed: plugin\.py:\d+: LookupError: no luck",
    ),
    "inputs_decline": alone(
        "def inputs(p, shape, make):\n    raise Unsupported('not today')\nparts['inputs'] = inputs",
        "skipped: not today",
    ),
    "cost_raises": ("def cost(p, shape):\n    return 1 / 0\nparts['cost'] = cost", {"reference": MEASURED}),
    "cost_is_words": ("parts['cost'] = lambda p, shape: 'much'", {"reference": MEASURED}),
    "cost_is_made_of_words": (
        "work = Work(Macs('many', 'few'), Macs('many', 'few'))\n"
        "parts['cost'] = lambda p, shape: Cost(parameters='some', core=work, layer=work)",
        {"reference": MEASURED},
    ),
    "cost_is_no_number": (
        "work = Work.bilinear(Macs.exact(float('nan')))\n"
        "parts['cost'] = lambda p, shape: Cost(parameters=4, core=work, layer=work)",
        {"reference": MEASURED},
    ),
    "params_raise": alone(
        "@dataclass(frozen=True)\nclass Params:\n    size: int = 3\n"
        "    def __post_init__(self):\n        raise KeyError('size')\n"
        "parts['params'] = Params",
        r"failed: .*KeyError: 'size'",
    ),
    "params_raise_later": alone(
        "made = []\n@dataclass(frozen=True)\nclass Params:\n    size: int = 3\n"
        "    def __post_init__(self):\n        made.append(1)\n        if len(made) > 1: raise SystemExit(3)\n"
        "parts['params'] = Params",
        r"failed: .*SystemExit: 3",
    ),
    "params_decline": alone(
        "made = []\n@dataclass(frozen=True)\nclass Params:\n    size: int = 3\n"
        "    def __post_init__(self):\n        made.append(1)\n"
        "        if len(made) > 1: raise ValueError('\\n\\ud800 size is\\x07 odd')\n"
        "parts['params'] = Params",
        r"skipped: \\ud800 size is\\x07 odd$",
    ),
    "params_hold_anything": (
        "class Strange:\n    pass\n"
        "@dataclass(frozen=True)\nclass Params:\n    a: object = Strange()\n    b: float = float('inf')\n"
        "    c: tuple = (1, 2)\n    d: torch.dtype = torch.float16\n    e: str = '\\ud800'\n"
        "parts['params'] = Params",
        {"reference": MEASURED},
    ),
    "params_are_of_odd_types": (
        "class Strange:\n    pass\n"
        "@dataclass(frozen=True)\nclass Params:\n    a: Strange = Strange()\n"
        "parts['params'] = Params",
        {"reference": MEASURED},
    ),
    "params_are_of_no_type": alone(
        "@dataclass(frozen=True)\nclass Params:\n    a: 'Nonesuch' = 3\nparts['params'] = Params",
        "failed: .*NameError: name 'Nonesuch' is not defined",
    ),
    "layer_returns_a_pair": alone(
        "class Layer(Layer):\n    def forward(self, x):\n        return super().forward(x), 1\nparts['layer'] = Layer",
        "failed: .*tuple",
    ),
    "layer_raises": alone("parts['layer'] = lambda *given: 1 / 0", "failed: .*ZeroDivisionError: division by zero"),
    "layer_is_missing": alone("parts['layer'] = None", "skipped: .* has no layer, only a core"),
    "layer_is_no_module": alone("parts['layer'] = lambda *given: None", "failed: .*NoneType"),
    "works_on_no_meta_tensor": (
        "def careful(p, x, weight):\n    assert x.shape and x.data_ptr(), 'real tensors only'\n"
        "    return x * weight[:, None, None]\nparts['reference'] = careful",
        {"reference": MEASURED},
    ),
    "implementations_are_odd": ("parts['implementations'] = {3: None}", {"reference": MEASURED}),
    "samples_are_odd": ("parts['samples'] = (1, 2)", {"reference": MEASURED}),
}


@pytest.mark.parametrize(
    "plugins",
    [ON_IMPORT, IN_ITS_CORE, IN_ITS_NUMBERS, IN_ITS_PARTS],
    ids=["on import", "in its core", "in its numbers", "in its parts"],
)
def test_a_hostile_plugin_costs_its_own_row_only(workshop: Workshop, plugins: Plugins) -> None:
    for name, (changes, _) in plugins.items():
        workshop.plugin(name, changes)
    workshop.plugin("first")
    workshop.plugin("last")
    suite = workshop.suite(["first", *plugins, "last"], measure={"timeout_seconds": 5})
    done = workshop.opbench("run", suite, "--out", "run", before=SMALL_AND_IMPATIENT)
    assert done.status == 5, done.errors
    expected = {
        "first": {"reference": MEASURED},
        **{name: endings for name, (_, endings) in plugins.items()},
        "last": {"reference": MEASURED},
    }
    found = endings_of(workshop.folder / "run")
    assert {name: list(rows) for name, rows in found.items()} == {name: list(rows) for name, rows in expected.items()}
    assert mismatches(found, expected) == []
    said = done.output + done.errors + (workshop.folder / "run/report.md").read_text()
    assert "rubbish" not in said
    assert "\x1b" not in said
    assert "Traceback" not in said
    assert [
        process.pid for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"] == ["sleep", "86399"]
    ] == []


def test_two_operators_of_one_name_are_refused_with_both_folders(workshop: Workshop) -> None:
    first, second = workshop.plugin("box", under="ops"), workshop.plugin("box", under="more")
    done = workshop.opbench("run", workshop.suite(["box"]), "--operators", "more", "--out", "run")
    assert done.status == 2
    assert "two operators are called 'box': " in done.errors
    assert str(first.parent) in done.errors
    assert str(second.parent) in done.errors
    assert not (workshop.folder / "run").exists()


def endings_of(run: Path) -> dict[str, dict[str, str]]:
    """How each implementation of each operator ended."""
    found: dict[str, dict[str, str]] = {}
    for record in store.read(run).records:
        found.setdefault(record.case.operator, {})[record.implementation] = in_words(record)
    return found


def in_words(record: Record) -> str:
    match record.outcome:
        case Wrong(quantity=quantity, where=where):
            return f"wrong: {quantity} {where}"
        case Skipped(reason=reason) | Failed(reason=reason):
            return f"{record.status}: {reason}"
    return record.status


def mismatches(found: dict[str, dict[str, str]], expected: dict[str, dict[str, str]]) -> list[str]:
    return [
        f"{operator}/{name}: {found[operator][name]!r} is not {pattern!r}"
        for operator, endings in expected.items()
        for name, pattern in endings.items()
        if not re.match(pattern + ("$" if pattern == MEASURED else ""), found[operator][name])
    ]
