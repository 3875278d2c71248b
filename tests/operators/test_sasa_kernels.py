"""Kernels of local attention and its peers: planted bugs are seen, shapes choose the path, borders agree."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from opbench import check as gate
from opbench.api import Maker
from opbench.cases import Nchw
from opbench.catching import CatchingCase, inputs_of
from opbench.cuda import Launch, on_cpu, recorded
from opbench.errors import Unsupported
from opbench.registry import Registry
from operators.sasa import any_window, cuda, small_window, tensor_window
from operators.sasa.flex import flex_attention
from operators.sasa.neighborhood import neighborhood_attention
from operators.sasa.reference import Params, local_attention

SASA = Registry.discover().load("sasa")

ANY = Params(kernel_size=9, heads=1, border="mask"), Nchw(1, 2, 3, 13), "float32"
# Long sums that cancel: it needs those of keys and of positions apart.
LONG = Params(kernel_size=5, heads=1, embedding="per_head"), Nchw(1, 32, 2, 6), "float32"
SMALL = Params(heads=2, border="mask", embedding="per_head"), Nchw(1, 16, 14, 16), "float32"
# Sums that cancel to the last bits.
EVEN = Params(heads=1, embedding="per_head"), Nchw(2, 12, 8, 9), "float32"
PEAKED = Params(heads=1, border="mask", embedding="per_head"), Nchw(2, 6, 7, 2), "float32"
LEAN = Params(heads=1), Nchw(1, 2, 4, 6), "float32"
TENSOR = Params(heads=1), Nchw(1, 16, 9, 9), "float16"
WIDE = Params(heads=1, border="mask"), Nchw(1, 8, 9, 36), "bfloat16"
DEEP = Params(heads=1, embedding="per_head"), Nchw(1, 32, 4, 18), "float16"
NARROW = Params(heads=1), Nchw(1, 12, 5, 8), "float16"
BROAD = Params(heads=1), Nchw(1, 66, 3, 8), "bfloat16"

BUGS = {
    "exponentials overwrite logits that are still compared": (
        "any_window.cu",
        "most = fmaxf(most, scores[tap * p.pixels + me.lane]);\n  __syncthreads();",
        "most = fmaxf(most, scores[tap * p.pixels + me.lane]);",
        ANY,
    ),
    "the last warp's share of the embeddings is left out": (
        "small_window_backward.cu",
        "warp < WARPS; ++warp) sum",
        "warp < WARPS - 1; ++warp) sum",
        SMALL,
    ),
    "sums down a column begin with what was there": (
        "small_window_backward.cu",
        "if (a > 0) load_floats<float>(all_down",
        "if (a >= 0) load_floats<float>(all_down",
        SMALL,
    ),
    "keys of a narrow head miss their columns": (
        "small_window_backward.cu",
        "attention[c][pixel] += slopes[c][pixel];",
        "attention[c][pixel] += 0;",
        LEAN,
    ),
    "shares of keys are not scaled": (
        "small_window_backward.cu",
        "load_row<VEC>(scale, sums, inside);",
        "for (float& each : scale) each = 1;",
        SMALL,
    ),
    "one lane's share of what slopes are taken from stands for all": (
        "small_window_backward.cu",
        "  sum_shares(start, p.shares);\n",
        "",
        SMALL,
    ),
    "slopes along a row keep what their mean is off by": (
        "small_window_backward.cu",
        "fmaf(-off[pixel], all_along[pixel], along[pixel])",
        "along[pixel]",
        EVEN,
    ),
    "slopes times keys keep what their mean is off by": (
        "small_window_backward.cu",
        "fmaf(-off[pixel], all_keys[e][pixel], keys[e][pixel])",
        "keys[e][pixel]",
        PEAKED,
    ),
    "halves of the channels are exchanged": (
        "tensor_band.cuh",
        "right[n][i] = words[n * WORDS / 2 + i];",
        "right[n][i] = words[n * WORDS / 2 + (WORDS / 2 - 1 - i)];",
        TENSOR,
    ),
    "a band one column off": (
        "tensor_band.cuh",
        "+ e - MARGIN - lane / 4 + K / 2;",
        "+ e - MARGIN - lane / 4 + K / 2 + 1;",
        TENSOR,
    ),
    "zeros overwrite what was copied": (
        "tensor_tile.cuh",
        "zero_vector<T, 8>());\n    __syncthreads();",
        "zero_vector<T, 8>());",
        WIDE,
    ),
    "a tile's last rows are not copied": (
        "tensor_tile.cuh",
        "min(above + Shape::ROWS, x.height)",
        "min(above + Shape::ROWS - K / 2, x.height)",
        WIDE,
    ),
    "every other batch of channels is left out": (
        "tensor_tile.cuh",
        "channel < D; channel += BATCH * groups) {",
        "channel < D; channel += 2 * BATCH * groups) {",
        WIDE,
    ),
    "channels of a narrow head lie too close": (
        "tensor_tile.cuh",
        "const int to = i + channel * (Shape::CHANNEL - Shape::ROWS * Shape::COLUMNS);",
        "const int to = i;",
        NARROW,
    ),
    "a narrow head has the row embedding of its first channel": (
        "tensor_key_backward.cu",
        "rel.row[of_row * K + shift]",
        "rel.row[shift]",
        NARROW,
    ),
    "columns beyond the image keep their embedding": (
        "tensor_band.cuh",
        "beside || !band.inside[e] ? LEFT_OUT",
        "!band.inside[e] ? LEFT_OUT",
        WIDE,
    ),
    "slopes are rounded once": ("tensor_band.cuh", "rest = pair_of<T>(left);", "rest = 0;", DEEP),
    "sums of slopes go to the neighbour's row": (
        "tensor_query_backward.cu",
        "half[2 + i] : half[i], given",
        "half[i] : half[2 + i], given",
        WIDE,
    ),
    "the gradient of the embeddings is not transposed": (
        "tensor_query_backward.cu",
        "transpose<T>(turned[part], factors[part], lane);",
        "for (int i = 0; i < 4; ++i) turned[part][i] = factors[part][i];",
        WIDE,
    ),
    "sums overwrite a tile that is still read": (
        "tensor_query_backward.cu",
        "[warp][channel][8]\n  __syncthreads();",
        "[warp][channel][8]",
        TENSOR,
    ),
    "sums are read before all warps have written them": (
        "tensor_query_backward.cu",
        "grad_embeddings[block][e];\n    }\n  __syncthreads();",
        "grad_embeddings[block][e];\n    }",
        DEEP,
    ),
    "a warp's sums are left out": ("tensor_query_backward.cu", "other < WARPS", "other < WARPS - 1", DEEP),
    "keys take the next tap's row": ("tensor_key_backward.cu", "4 * (K - 1 - j)", "4 * (K - 2 - j & 7)", DEEP),
    "lower keys take the upper keys' row": (
        "tensor_key_backward.cu",
        "lower[word] = upper[word];",
        "lower[word] = lower[word];",
        DEEP,
    ),
    "columns of positions come from the wrong eight": (
        "tensor_key_backward.cu",
        "gives_first[e] ? by_column[0][e]",
        "band.first[e] ? by_column[0][e]",
        WIDE,
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_seen(bug: str, mutant: Callable[..., Any]) -> None:
    file, old, new, case = BUGS[bug]
    assert mutant("sasa", file, old, new).failures(*case)


@pytest.mark.parametrize("case", [ANY, LONG, SMALL, EVEN, PEAKED, LEAN, TENSOR, WIDE, DEEP, NARROW, BROAD])
def test_the_kernels_without_bugs_pass(case: Any) -> None:
    params, shape, dtype = case
    inputs = inputs_of(SASA, CatchingCase(params, shape, "contiguous"), getattr(torch, dtype))
    with on_cpu():
        rows = gate.check(SASA, cuda.CUDA, params, inputs)
    assert [row for row in rows if not row.passed] == []


@pytest.mark.parametrize(
    ("params", "shape"),
    [
        (Params(heads=1, border="mask"), Nchw(2, 8, 8, 10)),
        (Params(heads=2, border="mask", embedding="per_head"), Nchw(1, 32, 6, 10)),
        (Params(heads=1, embedding="per_head"), Nchw(2, 8, 3, 7)),
        (Params(heads=1), Nchw(1, 32, 8, 2)),
        (Params(heads=2, border="mask"), Nchw(2, 128, 2, 9)),
        (Params(heads=1), Nchw(1, 2, 7, 10)),
        (Params(heads=1, border="mask"), Nchw(1, 12, 5, 8)),
    ],
)
def test_keys_have_the_logits_of_their_queries(params: Params, shape: Nchw) -> None:
    # Where a query's share is near one its slopes cancel, and so must the roundings of what they are made of: found
    # among random shapes as those that lost most, up to three times the budget, when keys had roundings of their own.
    inputs = inputs_of(SASA, CatchingCase(params, shape, "contiguous"), torch.float32)
    with on_cpu():
        rows = gate.check(SASA, cuda.CUDA, params, inputs)
    lost = {row.quantity: row.error / row.budget for row in rows}
    assert max(lost["grad_k"], lost["grad_v"]) <= 1, lost


@pytest.mark.parametrize(
    ("params", "shape", "dtype"),
    [
        (Params(heads=1, border="mask", embedding="per_head"), Nchw(2, 2, 5, 5), torch.float32),
        (Params(heads=1), Nchw(1, 2, 7, 10), torch.float32),
        (Params(heads=2, border="mask"), Nchw(1, 16, 5, 6), torch.float32),
        (Params(heads=2, border="mask", embedding="per_head"), Nchw(1, 12, 4, 7), torch.float32),
        (Params(heads=4), Nchw(1, 8, 2, 4), torch.float32),
        (Params(heads=1, border="mask", embedding="per_head"), Nchw(2, 16, 9, 2), torch.float16),
        (Params(heads=1, border="mask", embedding="per_head"), Nchw(2, 2, 3, 3), torch.float16),
        (Params(heads=1, border="mask", embedding="per_head"), Nchw(1, 2, 9, 3), torch.bfloat16),
    ],
)
def test_what_cancels_is_not_rounded_before(params: Params, shape: Nchw, dtype: torch.dtype) -> None:
    # Slopes sum to zero, and so do nearly what queries and embeddings get of them: found among random shapes as those
    # that lost more than the budget when attention times its gradient, or a slope in 16 bits, was rounded before.
    inputs = inputs_of(SASA, CatchingCase(params, shape, "contiguous"), dtype)
    with on_cpu():
        rows = gate.check(SASA, cuda.CUDA, params, inputs)
    lost = {row.quantity: row.error / row.budget for row in rows}
    assert max(lost.values()) < 0.8, lost


def test_rows_read_below_the_image_are_seen(mutant: Callable[..., Any]) -> None:
    bug = mutant("sasa", "strip.cuh", "row >= 0 && row < x.height && column >= 0", "row >= 0 && column >= 0")
    found = bug.failures(Params(heads=1), Nchw(1, 2, 1, 4), sanitize=True)
    assert "heap-buffer-overflow" in found[0]


def tensors(params: Params, shape: Nchw, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    return tuple(SASA.inputs(params, shape, Maker(dtype, generator=torch.Generator().manual_seed(0))).values())


@pytest.mark.parametrize(
    ("window", "channels", "dtype"), [(7, 4, torch.float32), (7, 8, torch.float16), (9, 4, torch.float32)]
)
def test_one_gradient_alone_is_the_same(window: int, channels: int, dtype: torch.dtype) -> None:
    params = Params(kernel_size=window, heads=1)
    inputs = tensors(params, Nchw(1, channels, 3, 5), dtype)
    gradient = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    with on_cpu():
        kept = cuda.forward(params, *inputs)
        every = cuda.backward(params, (True,) * 5, gradient, *(*inputs, *kept))
        for index in range(5):
            wanted = [place == index for place in range(5)]
            alone = cuda.backward(params, wanted, gradient, *(*inputs, *kept))
            assert [tensor is not None for tensor in alone] == wanted
            torch.testing.assert_close(alone[index], every[index], rtol=0, atol=0)


@pytest.mark.parametrize(("window", "dtype"), [(7, torch.float32), (9, torch.float32), (7, torch.bfloat16)])
def test_logits_far_beyond_what_exp_can_hold(window: int, dtype: torch.dtype) -> None:
    params = Params(kernel_size=window, heads=1, border="mask")
    q, *others = tensors(params, Nchw(1, 8, 5, 6), dtype)
    inputs = (1000 * q, *others)
    with on_cpu():
        y, statistic = cuda.forward(params, *inputs)
    assert float(statistic.abs().max()) > 1000
    expected = local_attention(params, *(tensor.double() for tensor in inputs))
    torch.testing.assert_close(y.double(), expected, rtol=2e-2, atol=2e-2)


def test_an_infinite_value_reaches_the_windows_it_is_in_and_no_others() -> None:
    params = Params(heads=1, border="mask")
    q, k, v, *embeddings = tensors(params, Nchw(1, 2, 6, 9))
    v[..., 1, 4] = float("inf")
    with on_cpu():
        y, _ = cuda.forward(params, q, k, v, *embeddings)
    reached = torch.zeros(6, 9, dtype=torch.bool)
    reached[:5, 1:8] = True
    assert torch.equal(y[0, 0, 0].isfinite(), ~reached)


def plan(path: Any, params: Params, shape: Nchw, dtype: torch.dtype = torch.float32) -> Launch:
    width = params.outputs(shape.channels) // params.heads
    q = torch.Size((shape.batch, params.heads, width, shape.height, shape.width))
    rel = torch.Size(params.embedding_shape(shape.channels))
    launch = path.plan(params, dtype, q, q, q, rel, rel, q, torch.Size((*q[:2], *q[3:])))
    assert isinstance(launch, Launch)
    return launch


def kernels_of(params: Params, shape: Nchw, dtype: torch.dtype) -> list[str]:
    """Names of the kernels that a forward and a backward run on meta tensors."""
    inputs = [
        tensor.requires_grad_() for tensor in SASA.inputs(params, shape, Maker(dtype, torch.device("meta"))).values()
    ]
    with recorded() as launches:
        kept = cuda.forward(params, *inputs)
        cuda.backward(params, (True,) * 5, torch.empty_like(inputs[0]), *(*inputs, *kept))
    return [launch.launch.kernel.partition("<")[0] for launch in launches]


@pytest.mark.parametrize(
    ("params", "channels", "dtype", "family"),
    [
        (Params(), 64, torch.float32, ["small_forward", "small_query_backward"]),
        (Params(), 512, torch.bfloat16, ["tensor_forward", "tensor_query_backward"]),
        (Params(heads=1), 20, torch.float16, ["tensor_forward", "tensor_query_backward"]),
        (Params(heads=1), 66, torch.float16, ["small_forward", "small_query_backward"]),
        (Params(heads=1), 130, torch.float32, ["any_forward", "any_query_backward"]),
        (Params(kernel_size=9), 64, torch.bfloat16, ["any_forward", "any_query_backward"]),
        (Params(kernel_size=5), 64, torch.float32, ["any_forward", "any_query_backward"]),
    ],
)
def test_window_width_and_dtype_choose_the_path(
    params: Params, channels: int, dtype: torch.dtype, family: list[str]
) -> None:
    names = kernels_of(params, Nchw(2, channels, 14, 14), dtype)
    key = family[1].replace("query", "key")
    assert names == [*family, "sum_embeddings", key]


def test_a_new_image_size_compiles_nothing_new() -> None:
    sizes = [Nchw(1, 64, 56, 56), Nchw(32, 64, 20, 100), Nchw(7, 128, 3, 4), Nchw(0, 512, 8, 8)]
    assert {plan(small_window.small_forward, Params(), size).kernel for size in sizes} == {"small_forward<float, 7, 4>"}
    assert {plan(any_window.any_forward, Params(), size).kernel for size in sizes} == {"any_forward<float>"}
    odd = [*sizes[:2], Nchw(1, 64, 5, 7)]
    tensor = {plan(tensor_window.tensor_forward, Params(), size, torch.float16).kernel for size in odd}
    assert tensor == {"tensor_forward<float16, 8, 7>"}
    assert plan(small_window.small_forward, Params(), Nchw(32, 256, 14, 14)).kernel == "small_forward<float, 7, 1>"
    assert plan(small_window.small_forward, Params(), Nchw(32, 512, 7, 7)).kernel == "small_forward<float, 7, 1>"


def test_grids_hold_every_query_once() -> None:
    # 56 rows of 14 strips are 784, and a block has 128; 8 columns of 2 rows a warp, tiles of 8 x 32.
    assert plan(small_window.small_forward, Params(), Nchw(32, 64, 56, 56)).blocks == 32 * 8 * 7
    assert plan(tensor_window.tensor_forward, Params(), Nchw(32, 64, 56, 56), torch.float16).blocks == 32 * 8 * 7 * 2
    # Two lanes share four pixels of 16 channels: half as many strips.
    assert plan(small_window.small_forward, Params(heads=1), Nchw(1, 16, 56, 56)).blocks == 13
    assert plan(any_window.any_forward, Params(), Nchw(70_000, 16, 8, 8)).grid == (70_000 * 8 * 2, 1, 1)
    assert plan(any_window.any_forward, Params(), Nchw(0, 16, 8, 8)).blocks == 0


@pytest.mark.parametrize("channels", [64, 128, 256, 512])
def test_the_oldest_devices_have_the_shared_memory(channels: int) -> None:
    inputs = [
        tensor.requires_grad_()
        for tensor in SASA.inputs(
            Params(), Nchw(1, channels, 28, 28), Maker(torch.float16, torch.device("meta"))
        ).values()
    ]
    with recorded() as launches:
        cuda.CUDA(Params(), *inputs).sum().backward()
    assert [launch.kernel for launch in launches if launch.launch.shared_bytes > 64 << 10] == []


def test_what_cannot_be_numbered_is_refused() -> None:
    plan(any_window.any_forward, Params(heads=1), Nchw(1, 62, 4096, 8192))
    for path in (any_window.any_forward, small_window.small_forward, tensor_window.tensor_forward):
        with pytest.raises(Unsupported, match="a head of 64 x 4096 x 8192 values"):
            plan(path, Params(heads=1), Nchw(1, 64, 4096, 8192), torch.float16)
    with pytest.raises(Unsupported, match="4294967296 blocks"):
        plan(any_window.any_forward, Params(heads=1), Nchw(2**31, 2, 8, 8))
    with pytest.raises(Unsupported, match="at most 77x77 taps"):
        any_window.block_pixels(Params(kernel_size=79), numbers=2)


@pytest.mark.filterwarnings("ignore:flex_attention called without:UserWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("border", ["zero", "mask"])
@pytest.mark.parametrize("embedding", ["shared", "per_head"])
def test_flex_attention_has_the_same_windows_and_positions(border: Any, embedding: Any) -> None:
    params = Params(kernel_size=3, heads=2, border=border, embedding=embedding)
    inputs = tensors(params, Nchw(2, 12, 5, 4))
    with torch.no_grad():
        y = flex_attention(params, *inputs)
    torch.testing.assert_close(y, local_attention(params, *inputs), rtol=1e-5, atol=1e-5)


def test_flex_attention_says_what_it_cannot() -> None:
    params = Params(kernel_size=3, heads=1)
    with pytest.raises(Unsupported, match="no backward on the CPU"):
        flex_attention(params, *(tensor.requires_grad_() for tensor in tensors(params, Nchw(1, 4, 3, 3))))
    with pytest.raises(Unsupported, match="empty batch"):
        flex_attention(params, *tensors(params, Nchw(0, 4, 3, 3)))


def moving_windows(q: Tensor, k: Tensor, v: Tensor, kernel_size: tuple[int, int], scale: float) -> Tensor:
    """NATTEN's rule on [N, H, W, h, d]: a window at a border moves inwards and has all its keys."""
    window = kernel_size[0]
    rows, columns = (
        (torch.arange(extent) - window // 2).clamp(0, extent - window)[:, None] + torch.arange(window)
        for extent in q.shape[1:3]
    )
    keys, values = (tensor[:, rows][:, :, :, columns] for tensor in (k, v))
    logits = scale * torch.einsum("nyxhd,nyaxbhd->nyxhab", q, keys)
    shares = logits.flatten(-2).softmax(-1).reshape(logits.shape)
    return torch.einsum("nyxhab,nyaxbhd->nyxhd", shares, values)


def with_natten(monkeypatch: pytest.MonkeyPatch) -> None:
    package = types.ModuleType("natten")
    package.functional = types.SimpleNamespace(na2d=moving_windows)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "natten", package)


@pytest.mark.parametrize("sample", [sample for sample in SASA.samples if sample.params.kernel_size > 1])
def test_moving_windows_with_a_margin_agree_to_the_border(sample: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with_natten(monkeypatch)
    case = CatchingCase(sample.params, Nchw(2, sample.channels, 4, 5), "contiguous")
    rows = gate.check(SASA, neighborhood_attention, sample.params, inputs_of(SASA, case, torch.float32))
    assert len(rows) == 6
    assert [row for row in rows if not row.passed] == []


def test_natten_says_what_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    params = Params(kernel_size=3, heads=1)
    inputs = tensors(params, Nchw(1, 4, 3, 3), torch.float16)
    monkeypatch.setitem(sys.modules, "natten", None)
    with pytest.raises(Unsupported, match="natten is not installed"):
        neighborhood_attention(params, *inputs)
    with_natten(monkeypatch)
    with pytest.raises(Unsupported, match="to 16 bits"):
        neighborhood_attention(params, *(tensor.requires_grad_() for tensor in inputs))
