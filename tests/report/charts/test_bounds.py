"""What measured ceilings allow: by hand, against published figures, and what must hold whatever the numbers."""

from __future__ import annotations

import random

import pytest

from opbench.report.charts.bounds import Roof, Work

# 67 TFLOP/s and 4.8 TB/s.
ROOF = Roof(macs_per_second=33.5e12, bytes_per_second=4.8e12)
IMAGE = 8 * 64 * 56 * 56 * 4
"""Bytes of 8x64x56x56 in float32."""
PIXELS = 8 * 56 * 56


def test_a_machine_is_balanced_where_its_two_roofs_meet() -> None:
    roof = Roof(macs_per_second=50e9, bytes_per_second=20e9)
    assert roof.balance_flops_per_byte == 5
    assert roof.attainable_macs_per_second(5) == 50e9
    assert roof.attainable_macs_per_second(1) == 10e9
    assert roof.attainable_macs_per_second(500) == 50e9


def test_bounds_of_a_sequence_add_up() -> None:
    roof = Roof(macs_per_second=100, bytes_per_second=10)
    sequence = [Work(macs=300, bytes=5), Work(macs=0, bytes=20), Work(macs=100, bytes=20)]
    # 3 s of arithmetic, 2 s of moving, and 2 s of moving for 1 s of arithmetic.
    assert roof.sequence_seconds(sequence) == 7
    assert roof.highest_efficiency(sequence) == pytest.approx(4 / 7)
    # The sums: 4 s of arithmetic against 4.5 s of moving.
    assert roof.pooled_efficiency(sequence) == pytest.approx(4 / 4.5)


def test_a_convnext_block_reaches_57_percent_where_a_pooled_roofline_promises_74() -> None:
    """A 7x7 depthwise, a norm, a product to four times the channels, GELU, one back, a scale and the sum."""
    block = [
        Work(macs=PIXELS * 64 * 49, bytes=2 * IMAGE),
        Work(macs=0, bytes=2 * IMAGE),
        Work(macs=PIXELS * 64 * 256, bytes=5 * IMAGE),
        Work(macs=0, bytes=8 * IMAGE),
        Work(macs=PIXELS * 64 * 256, bytes=5 * IMAGE),
        Work(macs=0, bytes=2 * IMAGE),
        Work(macs=0, bytes=3 * IMAGE),
    ]
    assert sum(each.bytes for each in block) == pytest.approx(174e6, rel=0.01)
    assert sum(each.macs for each in block) == pytest.approx(0.901e9, rel=0.01)
    assert ROOF.highest_efficiency(block) == pytest.approx(0.57, abs=0.005)
    assert ROOF.pooled_efficiency(block) == pytest.approx(0.74, abs=0.01)
    assert ROOF.sequence_seconds(block) == pytest.approx(47e-6, abs=0.5e-6)
    fused = [Work(macs=sum(each.macs for each in block), bytes=13_000_000)]
    assert ROOF.highest_efficiency(fused) == 1


@pytest.mark.parametrize(
    ("macs", "bytes_", "efficiency", "seconds"), [(0.925e9, 13.0e6, 1, 27.6e-6), (0.079e9, 12.9e6, 0.88, 2.7e-6)]
)
def test_single_kernels(macs: float, bytes_: float, efficiency: float, seconds: float) -> None:
    """A dense 3x3 and a 7x7 depthwise convolution of 8x64x56x56."""
    kernel = [Work(macs, bytes_)]
    assert ROOF.highest_efficiency(kernel) == pytest.approx(efficiency, abs=0.005)
    assert ROOF.sequence_seconds(kernel) == pytest.approx(seconds, abs=0.05e-6)


def test_nothing_to_do_reaches_nothing() -> None:
    assert ROOF.highest_efficiency([]) == ROOF.pooled_efficiency([]) == 0
    assert ROOF.highest_efficiency([Work(0, 100)]) == ROOF.pooled_efficiency([Work(0, 100)]) == 0


@pytest.mark.parametrize("seed", range(20))
def test_no_sequence_beats_the_roof_over_its_sums_and_fusing_never_makes_it_slower(seed: int) -> None:
    dice = random.Random(seed)
    roof = Roof(macs_per_second=dice.uniform(1e9, 1e14), bytes_per_second=dice.uniform(1e9, 1e13))
    sequence = [
        Work(dice.choice([0, dice.randrange(10**9)]), dice.randrange(1, 10**8)) for _ in range(dice.randint(2, 12))
    ]
    reached = roof.highest_efficiency(sequence)
    assert reached <= roof.pooled_efficiency(sequence) * (1 + 1e-12) <= 1 + 1e-9
    for index in range(len(sequence) - 1):
        first, second = sequence[index : index + 2]
        # What the first wrote, the second need not read: up to all the bytes of the smaller one.
        moved = dice.uniform(max(first.bytes, second.bytes), first.bytes + second.bytes)
        fused = [*sequence[:index], Work(first.macs + second.macs, moved), *sequence[index + 2 :]]
        assert roof.highest_efficiency(fused) >= reached * (1 - 1e-12)
