"""`opbench verify`."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import Workshop

EIGHT = ["convolution", "drconv", "dynamic_convolution", "involution"]
EIGHT += ["large_kernel_depthwise", "ls_convolution", "sasa", "xvolution"]

WRONG = """
@other
def add(p, x, weight):
    return x + 0 * weight[:, None, None]
"""
CRASHES = """
@other
def crash(p, x, weight):
    os.kill(os.getpid(), signal.SIGSEGV)
"""
SLEEPS = """
@other
def sleep(p, x, weight):
    open({!r}, "w").close()
    time.sleep(60)
"""


def test_all_eight_operators_pass_in_float32(workshop: Workshop) -> None:
    command = workshop.opbench("verify", "--dtype", "float32")
    lines = command.output.splitlines()
    assert [line.split()[0] for line in lines if " reference " in line] == EIGHT
    skipped = [line for line in lines if not re.search(r" float32: pass: \d+ quantities over \d+ cases", line)]
    peers = ("cuda", "flex", "natten")
    assert [line for line in skipped if line.split()[1] not in peers or ": skipped: " not in line] == []
    assert (command.status, command.errors) == (0, f"opbench: {len(lines)} of {len(lines)} passed\n")


def test_a_wrong_implementation_is_status_5_and_names_the_quantity(workshop: Workshop) -> None:
    workshop.plugin("mine", WRONG)
    arguments = ("verify", "mine", "--operators", "ops", "--dtype", "float32")
    text, data = workshop.start(*arguments), workshop.start(*arguments, "--json")
    right, wrong, *details = text.output.splitlines()
    assert right.startswith("mine reference float32: pass: ")
    assert re.match(r"mine other float32: FAILED: \d+ of \d+ quantities over \d+ cases", wrong)
    assert re.match(
        r"  (forward|grad_x) off by \d\.\de[+-]\d\d, budget .*, worst at \[\d.*\]: NoParams\(\) at ", details[0]
    )

    rows = json.loads(data.output)
    keys = ["operator", "implementation", "dtype", "case", "quantity", "error", "budget", "where", "status", "reason"]
    assert {tuple(row) for row in rows} == {tuple(keys)}
    told = re.findall(r"`(\w+)`", workshop.opbench("verify", "--help").output)
    assert told == [*keys, "kernel"]  # the last one with --on-cpu
    failed = {row["quantity"] for row in rows if row["status"] == "fail"}
    assert failed == {"forward", "grad_x", "grad_weight"}
    assert {row["implementation"] for row in rows if row["status"] == "fail"} == {"other"}
    assert all(row["error"] <= row["budget"] for row in rows if row["status"] == "pass")
    assert (text.status, data.status) == (5, 5)


def test_a_crash_is_the_failure_of_one_implementation(workshop: Workshop) -> None:
    workshop.plugin("mine", CRASHES)
    workshop.plugin("broken", "raise RuntimeError('no luck')")
    arguments = ("verify", "broken", "mine", "convolution", "--operators", "ops", "--dtype", "float64")
    text, data = workshop.start(*arguments), workshop.start(*arguments, "--json")
    broken, reference, other, *rest = text.output.splitlines()
    assert re.match(r"broken reference float64: FAILED: .*ops/broken/plugin\.py: RuntimeError: no luck", broken)
    assert reference.startswith("mine reference float64: pass")
    assert re.match(r"mine other float64: FAILED: crashed: .*SIGSEGV", other)
    assert [line.split(":")[1] for line in rest if " cuda " not in line] == [" pass"] * (len(rest) - 1)
    failed = [row for row in json.loads(data.output) if row["status"] == "fail"]
    assert [(row["operator"], row["case"], row["error"]) for row in failed] == [
        ("broken", None, None),
        ("mine", None, None),
    ]
    assert "SIGSEGV" in failed[1]["reason"]
    assert (text.status, data.status) == (5, 5)


def test_what_an_implementation_does_not_cover_is_skipped_with_the_reason(workshop: Workshop) -> None:
    workshop.plugin("mine", "parts['implementations'] = {'other': Implementation(core=scale, dtypes=('float32',))}")
    command = workshop.opbench(
        "verify", "mine", "--operators", "ops", "--dtype", "float64", "--implementation", "other", "--json"
    )
    rows = json.loads(command.output)
    assert {(row["status"], row["reason"], row["quantity"]) for row in rows} == {("skip", "covers float32", None)}
    assert command.status == 0


def test_verifying_what_does_not_exist_does_not_pass(workshop: Workshop) -> None:
    command = workshop.opbench("verify", "convolution", "sasa", "--implementation", "natve")
    assert (command.status, command.output) == (2, "")
    assert command.errors == "opbench: no implementation 'natve'; did you mean 'native'?\n"


def test_a_reference_that_covers_nothing_does_not_pass(workshop: Workshop) -> None:
    workshop.plugin("mine", "def never(p, x, w):\n    raise Unsupported('not today')\nparts['reference'] = never")
    command = workshop.opbench("verify", "mine", "--operators", "ops", "--dtype", "float32")
    assert command.status == 5
    assert command.output == "mine reference float32: FAILED: none of 7 cases could be checked: not today\n"


def test_an_interrupt_ends_the_child_too_and_is_status_130(workshop: Workshop) -> None:
    there = workshop.folder / "there"
    workshop.plugin("slow", SLEEPS.format(str(there)))
    command = workshop.start("verify", "slow", "--implementation", "other", "--operators", "ops")
    command.wait_for(there.exists)
    os.kill(command.pid, signal.SIGINT)
    assert command.status == 130
    assert command.errors.strip() == "opbench: interrupted"
