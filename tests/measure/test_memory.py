"""What a pass holds: autograd's savings counted by hand, and real memory seen from a process of its own."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from opbench.measure.memory import Allocator, Peaks, Trial, agree, kept_bytes, measure, middle, repeated
from opbench.measure.resident import is_supported, parse_high_water
from opbench.measure.tracker import LiveStorages

MIB = 1 << 20


def leaf(*shape: int) -> Tensor:
    return torch.ones(shape, requires_grad=True)


X, Y = leaf(10, 20), leaf(10, 20)
W, V = nn.Parameter(torch.ones(20, 30)), nn.Parameter(torch.ones(30, 5))
IMAGE, FILTER = leaf(2, 3, 8, 8), nn.Parameter(torch.ones(4, 3, 3, 3))

# Bytes of X, of X @ W and of the image.
B_X, B_XW, B_IMAGE = 4 * 10 * 20, 4 * 10 * 30, 4 * 2 * 3 * 8 * 8


def training(call: Callable[[], Tensor], inputs: Sequence[Tensor], parameters: Sequence[Tensor] = ()) -> Trial:
    return Trial(call, inputs, parameters, "training")


@pytest.mark.parametrize(
    ("call", "saved"),
    [
        # Inputs and parameters that the backward needs were there anyway.
        (lambda: X @ W, 0),
        (lambda: F.conv2d(IMAGE, FILTER, padding=1), 0),
        (lambda: X * Y, 0),
        (lambda: X + Y, 0),
        (lambda: X.square(), 0),
        # Results that the backward needs are kept.
        (lambda: X.relu(), B_X),
        (lambda: X.exp(), B_X),
        (lambda: X.softmax(-1), B_X),
        # The result of relu is what relu and the product after it both keep: one storage.
        (lambda: (X @ W).relu() @ V, B_XW),
        # gelu keeps its input, the product its result.
        (lambda: F.gelu(X @ W) @ V, 2 * B_XW),
        (lambda: (X * 2) * (Y * 3), 2 * B_X),
        # Max pooling keeps the place of each maximum, 8 bytes wide.
        (lambda: F.max_pool2d(IMAGE, 2), 8 * 2 * 3 * 4 * 4),
        # Two views of one product are one storage.
        (lambda: (X * 2)[:5] * (X * 2)[5:], 2 * B_X),
        (lambda: (lambda double: double[:5] * double[5:])(X * 2), B_X),
        # Each step of a chain keeps its own result.
        (lambda: X.exp().exp().exp(), 3 * B_X),
    ],
)
def test_autograd_saves_what_the_derivative_needs(call: Callable[[], Tensor], saved: int) -> None:
    assert kept_bytes(training(call, [X, Y, IMAGE], [W, V, FILTER]))[1] == saved


def test_nothing_is_saved_without_training() -> None:
    output_bytes, saved_bytes = kept_bytes(Trial(lambda: X.exp(), [X], (), "forward"))
    assert (output_bytes, saved_bytes) == (B_X, None)


def test_an_output_that_lies_in_an_input_takes_no_memory() -> None:
    assert kept_bytes(Trial(lambda: X.view(20, 10), [X], (), "forward")) == (0, None)


def test_training_a_linear_layer_by_hand() -> None:
    """[64, 100] -> [64, 30]: forward the output; backward the gradients of x, weight and bias."""
    layer, x = nn.Linear(100, 30), leaf(64, 100)
    trial = training(lambda: layer(x), [x], list(layer.parameters()))
    storages = LiveStorages()
    with storages:
        peaks = repeated(trial, storages)
    assert peaks == [Peaks(4 * 64 * 30, 4 * (64 * 100 + 100 * 30 + 30))] * 3
    assert kept_bytes(trial) == (4 * 64 * 30, 0)


def test_the_backward_of_a_chain_releases_as_it_goes() -> None:
    """Four gradients are made, but with each step back a saved result goes.

    Above the base of four results: the first gradient; with the second, two, before the first and the third result
    are let go; from then on less.
    """
    trial = training(lambda: X.exp().exp().exp().exp(), [X])
    storages = LiveStorages()
    with storages:
        assert repeated(trial, storages) == [Peaks(4 * B_X, 2 * B_X)] * 3


def test_a_forward_builds_no_graph() -> None:
    """With a graph all four results would be kept; without, only the last and the one it is made from."""
    trial = Trial(lambda: X.exp().exp().exp().exp(), [X], (), "forward")
    storages = LiveStorages()
    with storages:
        assert repeated(trial, storages) == [Peaks(2 * B_X)] * 3


def test_repetitions_agree_within_the_tolerance() -> None:
    close = [Peaks(1000, 500), Peaks(1009, 500), Peaks(1001, 502)]
    assert agree(close, 0.01)
    assert not agree(close, 0.0)
    assert not agree([Peaks(1000, 500), Peaks(1000, 600), Peaks(1000, 500)], 0.01)
    assert agree([Peaks(7)] * 3, 0.0)
    assert agree([Peaks(0, 0)] * 3, 0.0)


def test_the_middle_of_repetitions_is_taken_for_each_phase() -> None:
    assert middle([Peaks(3, 10), Peaks(1, 30), Peaks(2, 20)]) == Peaks(2, 20)
    assert middle([Peaks(3), Peaks(1), Peaks(2)]) == Peaks(2)


def test_high_water_is_read_in_kibibytes() -> None:
    assert parse_high_water("VmPeak:\t  999 kB\nVmHWM:\t   1234 kB\nVmRSS:\t   1000 kB\n") == 1234 * 1024
    with pytest.raises(ValueError, match="no VmHWM"):
        parse_high_water("VmRSS:\t   1000 kB\n")


# Allocates 64 MiB in between, trains a layer, and tells what was seen, resident size before and after included.
FRESH_PROCESS = """
import dataclasses, json, psutil, torch
from opbench.measure.memory import measure

torch.set_num_threads(1)
x = torch.ones(16, 1 << 18)
def temporary():
    return torch.cat([x, x, x, x]).sum()
temporary()
before = psutil.Process().memory_info().rss
temporary()
after = psutil.Process().memory_info().rss

layer = torch.nn.Linear(2048, 1024)
features = torch.ones(1024, 2048, requires_grad=True)
print(json.dumps({
    "left": after - before,
    "temporary": [dataclasses.asdict(row) for row in measure(temporary, [x], [], "forward")],
    "layer": [
        dataclasses.asdict(row)
        for row in measure(lambda: layer(features), [features], list(layer.parameters()), "training")
    ],
    "compiled": [row.source for row in measure(lambda: x[0] + 1, [x], [], "forward", compiled=True)],
}))
"""


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    if not is_supported():
        pytest.skip("this kernel's high-water mark cannot be lowered")
    done = subprocess.run([sys.executable, "-c", FRESH_PROCESS], capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_a_temporary_of_64_mib_is_seen_by_both_meters(seen: dict[str, Any]) -> None:
    tracker, high_water = seen["temporary"]
    assert (tracker["source"], high_water["source"]) == ("tracker", "high_water")
    assert tracker["forward_peak_bytes"] == 64 * MIB + 4
    assert tracker["repeatable"]
    assert high_water["forward_peak_bytes"] == pytest.approx(64 * MIB, rel=0.02)
    for row in seen["temporary"]:
        assert (row["inputs_bytes"], row["parameters_bytes"], row["output_bytes"]) == (16 * MIB, 0, 4)
        assert row["saved_bytes"] is None
        assert row["backward_peak_bytes"] is None


def test_resident_size_after_the_call_sees_nothing_of_it(seen: dict[str, Any]) -> None:
    assert abs(seen["left"]) < 2 * MIB


def test_training_a_layer_is_seen_alike_by_both_meters(seen: dict[str, Any]) -> None:
    """[1024, 2048] -> [1024, 1024]: an output of 4 MiB; gradients of 8 MiB for x, as much for the weight, and 4 KiB."""
    tracker, high_water = seen["layer"]
    assert tracker["forward_peak_bytes"] == 4 * MIB
    assert tracker["backward_peak_bytes"] == 16 * MIB + 4096
    assert high_water["forward_peak_bytes"] == pytest.approx(4 * MIB, abs=MIB)
    assert high_water["backward_peak_bytes"] == pytest.approx(16 * MIB, abs=2 * MIB)
    for row in seen["layer"]:
        assert row["inputs_bytes"] == 8 * MIB
        assert row["parameters_bytes"] == 8 * MIB + 4096
        assert row["output_bytes"] == 4 * MIB
        assert row["saved_bytes"] == 0


def test_compiled_code_is_left_to_the_high_water_mark(seen: dict[str, Any]) -> None:
    assert seen["compiled"] == ["high_water"]


class FakeCuda:
    """An allocator's account: blocks of 512 bytes, and the whole of a cached block where one is reused."""

    def __init__(self) -> None:
        self.current = {"allocated_bytes": 0, "requested_bytes": 0}
        self.peak = dict(self.current)
        self.cached: list[int] = []
        self.kept: list[tuple[int, int]] = []

    def take(self, requested: int) -> tuple[int, int]:
        fitting = [size for size in self.cached if size >= requested]
        block = min(fitting) if fitting else -(-requested // 512) * 512
        if fitting:
            self.cached.remove(block)
        self._add(block, requested)
        return block, requested

    def give(self, taken: tuple[int, int]) -> None:
        self._add(-taken[0], -taken[1])
        self.cached.append(taken[0])

    def _add(self, block: int, requested: int) -> None:
        self.current["allocated_bytes"] += block
        self.current["requested_bytes"] += requested
        self.peak = {name: max(self.peak[name], value) for name, value in self.current.items()}

    def empty_cache(self) -> None:
        self.cached.clear()

    def reset_peak_memory_stats(self, device: torch.device) -> None:
        self.peak = dict(self.current)

    def memory_stats(self, device: torch.device) -> dict[str, int]:
        if not any(self.peak.values()):
            return {}
        moments = {"current": self.current, "peak": self.peak}
        return {f"{name}.all.{moment}": value for moment, all_ in moments.items() for name, value in all_.items()}


@pytest.mark.parametrize(
    ("quantity", "forward", "backward"),
    [
        # Scratch of 1000 bytes and an output of 100; gradients of 200, in the scratch's block, and of 500.
        ("allocated_bytes", 1024 + 512, 1024 + 512),
        ("requested_bytes", 1100, 700),
    ],
)
def test_the_allocator_s_peaks_are_above_what_was_there(quantity: Any, forward: int, backward: int) -> None:
    """The weight is there before; the workspace that the first call takes and keeps is no peak of the later ones."""
    fake = FakeCuda()
    fake.take(300)
    workspace: list[object] = []

    def call() -> Tensor:
        if not workspace:
            workspace.append(fake.take(1 << 20))
        scratch, output = fake.take(1000), fake.take(100)
        fake.give(scratch)
        fake.kept.append(output)
        return X * 2

    class Phases(Trial):
        def backward(self, output: Tensor, incoming: Tensor) -> tuple[Tensor | None, ...]:
            # The first gradient gets the whole block that the scratch left, the second one of its own.
            for taken in (fake.take(200), fake.take(500), fake.kept.pop()):
                fake.give(taken)
            return ()

    found = repeated(Phases(call, [X], (), "training"), Allocator(torch.device("cuda"), quantity, fake))
    assert found == [Peaks(forward, backward)] * 3


def test_a_device_without_statistics_holds_nothing() -> None:
    meter = Allocator(torch.device("cuda"), statistics=FakeCuda())
    meter.settle()
    meter.start_phase()
    assert meter.phase_peak_bytes() == 0


@pytest.mark.gpu
def test_a_temporary_on_a_gpu_is_seen_to_the_block() -> None:
    x = torch.ones(MIB, device="cuda")
    rows = {row.source: row for row in measure(lambda: torch.cat([x, x]).sum(), [x], [], "forward", x.device)}
    assert rows["tracker"].forward_peak_bytes == 8 * MIB + 4
    # The allocator rounds up to blocks of 512 bytes, and a reduction may borrow a buffer.
    assert rows["allocator"].forward_peak_bytes == pytest.approx(8 * MIB, abs=MIB)
    assert rows["allocator"].repeatable


@pytest.mark.gpu
def test_training_on_a_gpu_is_seen_alike_by_tracker_and_allocator() -> None:
    """[1000, 1001] squared twice: one result is kept; what was asked for is what the tensors hold."""
    x = torch.ones(1000, 1001, device="cuda", requires_grad=True)
    rows = {row.source: row for row in measure(lambda: x.square().square(), [x], [], "training", x.device)}
    tracker, allocator = rows["tracker"], rows["allocator"]
    assert allocator.forward_requested_bytes == tracker.forward_peak_bytes == 2 * 4 * 1000 * 1001
    assert allocator.backward_requested_bytes == tracker.backward_peak_bytes
    assert allocator.saved_bytes == tracker.saved_bytes == 4 * 1000 * 1001
    assert allocator.forward_peak_bytes >= allocator.forward_requested_bytes
