"""Storages counted to the byte, against sums one can do by hand; float32 has 4 bytes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from opbench.measure.tracker import LiveStorages, peak_bytes_on_meta, storage_bytes

N = 1000
ONE = 4 * N
"""Bytes of the input of most tests."""


def peak(call: Callable[[Tensor], object], x: Tensor) -> int:
    storages = LiveStorages()
    with storages:
        call(x)
    return storages.phase_peak_bytes()


def chain(x: Tensor) -> Tensor:
    for _ in range(50):
        x = x + 1
    return x


def grown(x: Tensor) -> Tensor:
    y = x.clone()
    return y.resize_(3 * N)


def branches(x: Tensor) -> Tensor:
    first, second, third = x + 1, x + 2, x + 3
    return first + second + third


def forgotten(x: Tensor) -> Tensor:
    (x + 1).sum()
    return x + 2


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda x: x + 1, ONE),
        (chain, 2 * ONE),
        # Three branches and first + second are alive when the last sum is made, and then it as well.
        (branches, 5 * ONE),
        (forgotten, ONE + 4),
        (lambda x: x.clone().add_(1).mul_(2).relu_(), ONE),
        (lambda x: x.add_(1), 0),
        (lambda x: x.view(10, 100).t()[3:, ::2].unfold(0, 3, 1), 0),
        (lambda x: x.clone().view(10, 100).t().unfold(0, 3, 1), ONE),
        (lambda x: x.view(10, 100).t().contiguous(), ONE),
        (lambda x: x[:1].expand(N), 0),
        (lambda x: x.double(), 2 * ONE),
        (grown, 3 * ONE),
        (lambda x: torch.tensor([1.0, 2.0]), 8),
        (lambda x: torch.cat([x, x, x]).sum(), 3 * ONE + 4),
        (lambda x: None, 0),
    ],
)
def test_peak_is_what_hand_counting_gives(call: Callable[[Tensor], object], expected: int) -> None:
    assert peak(call, torch.ones(N)) == expected


def test_unfold_holds_every_tap_of_every_position() -> None:
    x = torch.ones(2, 3, 8, 6)
    columns = 2 * (3 * 5 * 5) * (8 * 6) * 4
    assert peak(lambda x: F.unfold(x, 5, padding=2), x) == columns
    assert peak(lambda x: F.unfold(x, 5, padding=2).sum(1), x) == columns + 2 * 8 * 6 * 4


def test_everything_is_released_in_the_end() -> None:
    storages = LiveStorages()
    x = torch.ones(N)
    with storages:
        kept = chain(x)
    assert storages.live_bytes == kept.untyped_storage().nbytes() == ONE
    del kept
    assert storages.live_bytes == 0
    assert storages.found_bytes == ONE


def test_a_phase_starts_from_what_is_live() -> None:
    storages = LiveStorages()
    x = torch.ones(N)
    with storages:
        kept = torch.cat([x, x])
        storages.start_phase()
        assert storages.phase_peak_bytes() == 0
        (x + 1).sum()
        del kept
    assert storages.phase_peak_bytes() == ONE + 4


def test_the_backward_is_seen_too() -> None:
    """Of exp, autograd keeps the result; the backward makes one gradient."""
    storages = LiveStorages()
    x = torch.ones(N, requires_grad=True)
    with storages:
        y = x.exp()
        incoming = torch.ones_like(y)
        storages.start_phase()
        y.backward(incoming)
    assert storages.phase_peak_bytes() == ONE


@pytest.mark.parametrize("call", [chain, branches, grown, forgotten, lambda x: F.unfold(x.view(1, 1, 10, 100), 3)])
def test_meta_tensors_foresee_the_same_peak(call: Callable[[Tensor], object]) -> None:
    meta, real = torch.ones(N, device="meta"), torch.ones(N)
    assert peak_bytes_on_meta(lambda: call(meta)) == peak(call, real) + ONE


def test_a_case_that_fits_no_machine_is_foreseen_without_memory() -> None:
    huge = torch.empty(1 << 45, device="meta")
    assert peak_bytes_on_meta(lambda: huge + 1) == 2 * (4 << 45)


def test_meta_training_holds_inputs_parameters_activations_and_gradients() -> None:
    """[5, 7] -> [5, 3]: x and its gradient, weight and its, bias and its, output and its."""
    layer = torch.nn.Linear(7, 3, device="meta")
    x = torch.empty(5, 7, device="meta", requires_grad=True)

    def train() -> None:
        y = layer(x)
        y.backward(torch.ones_like(y))

    assert peak_bytes_on_meta(train) == 2 * 4 * (5 * 7 + 3 * 7 + 3 + 5 * 3)


def test_a_storage_counts_once_however_many_views_it_has() -> None:
    x, other = torch.ones(N), torch.ones(7)
    assert storage_bytes([x, x[:3], x.view(10, 100).t()]) == ONE
    assert storage_bytes([x[:3], other]) == ONE + 28
    assert storage_bytes([x[:3], other], without=[x[5:]]) == 28
    assert storage_bytes([]) == 0
