"""The tools that plugins are given."""

import pytest
import torch

from opbench.api import Implementation, Operator, Unsupported, Window, taps, windows

WINDOWS = [
    (Window.half(3), Window.half(5)),
    (Window.half(3, stride=2), Window.half(1, stride=3)),
    (Window.half(5, stride=2, dilation=2), Window(2, padding=1, dilation=3)),
    (Window(4, padding=1, padding_end=2), Window(2, stride=2)),
]


@pytest.mark.parametrize(("vertical", "horizontal"), WINDOWS, ids=str)
@pytest.mark.parametrize("batch", [0, 2])
def test_taps_are_the_windows_one_at_a_time(vertical: Window, horizontal: Window, batch: int) -> None:
    x = torch.arange(1.0, 1 + batch * 3 * 9 * 6).view(batch, 3, 9, 6)
    at_once = windows(x, vertical, horizontal)
    assert at_once.shape[2:] == (vertical.kernel, horizontal.kernel, vertical.outputs(9), horizontal.outputs(6))
    one_by_one = list(taps(x, vertical, horizontal))
    assert len(one_by_one) == vertical.kernel * horizontal.kernel
    assert torch.equal(torch.stack(one_by_one, dim=2), at_once.flatten(2, 3))


def test_the_corner_window_of_a_3x3_kernel_sees_five_zeros() -> None:
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    seen = windows(x, Window.half(3), Window.half(3))
    assert seen[0, 0, :, :, 0, 0].tolist() == [[0, 0, 0], [0, 1, 2], [0, 3, 4]]
    assert seen[0, 0, :, :, 1, 1].tolist() == [[1, 2, 0], [3, 4, 0], [0, 0, 0]]


def test_a_window_larger_than_the_padded_image_is_unsupported() -> None:
    image = torch.zeros(1, 1, 4, 4)
    with pytest.raises(Unsupported, match="a 5x1 window does not fit"):
        windows(image, Window(5), Window(1))
    with pytest.raises(Unsupported, match="a 1x5 window does not fit"):
        list(taps(image, Window(1), Window(5)))


@pytest.mark.parametrize("name", ["reference", "compile", "all"])
def test_an_implementation_cannot_take_a_name_of_the_harness(name: str) -> None:
    with pytest.raises(ValueError, match=f"implementations cannot be called {name}"):
        Operator(reference=torch.mul, implementations={name: Implementation(core=torch.mul)})
