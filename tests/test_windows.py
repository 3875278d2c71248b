"""Windows against positions counted one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opbench.windows import Window

windows = st.builds(
    Window,
    kernel=st.integers(1, 9),
    stride=st.integers(1, 5),
    padding=st.integers(0, 12),
    dilation=st.integers(1, 4),
    padding_end=st.none() | st.integers(0, 12),
)
extents = st.integers(1, 20)
properties = settings(derandomize=True, deadline=None, max_examples=300)


def pixels(window: Window, extent: int) -> np.ndarray:
    """The pixel each tap of each output reads, as [outputs, kernel]; those below 0 or from `extent` on are padding."""
    before, after = window.paddings
    taps = window.dilation * np.arange(window.kernel)
    starts = np.arange(-before, extent + after, window.stride)
    starts = starts[starts + taps[-1] < extent + after]
    return np.asarray(starts[:, None] + taps)


@given(windows, extents)
@properties
def test_every_count_is_that_of_the_positions(window: Window, extent: int) -> None:
    read = pixels(window, extent)
    assert window.outputs(extent) == len(read)
    assert window.taps(extent) == read.size
    assert window.taps_in_bounds(extent) == np.count_nonzero((read >= 0) & (read < extent))


@given(windows, extents)
@properties
def test_without_padding_every_tap_is_in_bounds(window: Window, extent: int) -> None:
    bare = Window(window.kernel, window.stride, 0, window.dilation)
    assert bare.taps_in_bounds(extent) == bare.taps(extent)
    assert (bare.outputs(extent) == 0) == (bare.span > extent)


@given(st.integers(0, 8), st.integers(1, 5), st.integers(1, 4), extents)
@properties
def test_half_an_odd_window_centres_it_on_every_stride_th_pixel(
    half: int, stride: int, dilation: int, extent: int
) -> None:
    window = Window.half(2 * half + 1, stride, dilation)
    centres = pixels(window, extent)[:, half]
    assert centres.tolist() == list(range(0, extent, stride))


@pytest.mark.parametrize(
    ("window", "extent", "outputs", "in_bounds"),
    [
        (Window(3, padding=1), 5, 5, 13),
        (Window(7, stride=2, padding=3), 224, 112, 778),
        (Window.half(27), 14, 14, 196),
        (Window.half(4), 5, 4, 14),
        (Window(2, padding=0, padding_end=1), 5, 5, 9),
        (Window(6), 5, 0, 0),
    ],
    ids=str,
)
def test_known_windows(window: Window, extent: int, outputs: int, in_bounds: int) -> None:
    assert (window.outputs(extent), window.taps_in_bounds(extent)) == (outputs, in_bounds)


def test_a_window_wider_than_twice_the_image_sees_every_pixel_from_every_output() -> None:
    assert Window.half(31).taps_in_bounds(10) == 10 * 10


def test_padding_is_the_same_on_both_ends_unless_said_otherwise() -> None:
    assert Window(3, padding=2).paddings == (2, 2)
    assert Window(3, padding=2, padding_end=0).paddings == (2, 0)
    assert Window(5, dilation=3).span == 13
