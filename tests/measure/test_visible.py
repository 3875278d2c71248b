"""CUDA_VISIBLE_DEVICES is read as CUDA's programming guide says."""

import pytest

from opbench.measure.visible import visible_uuids

A, B, C = "GPU-aaaa-1111", "GPU-aabb-2222", "GPU-cccc-3333"


@pytest.mark.parametrize(
    ("variable", "visible"),
    [
        (None, (A, B, C)),
        ("", ()),
        ("0", (A,)),
        ("2,0", (C, A)),
        (" 2 , 1", (C, B)),
        # The list ends at the first entry that names no device.
        ("1,-1,0", (B,)),
        ("1,7,0", (B,)),
        ("-1", ()),
        ("NoDevFiles", ()),
        # A device named twice leaves none.
        ("0,0", ()),
        # A UUID may be cut short as long as it is the only one that begins so.
        ("GPU-cccc", (C,)),
        ("GPU-aabb,GPU-aaaa", (B, A)),
        ("GPU-aa", ()),
        ("GPU-dddd,GPU-cccc", ()),
        (C, (C,)),
        # An instance of a split GPU is named whole.
        ("MIG-5f3e", ("MIG-5f3e",)),
    ],
)
def test_the_variable_chooses_and_orders(variable: str | None, visible: tuple[str, ...]) -> None:
    assert visible_uuids(variable, [A, B, C]) == visible


def test_without_gpus_there_is_nothing_to_see() -> None:
    assert visible_uuids(None, []) == ()
    assert visible_uuids("0", []) == ()
