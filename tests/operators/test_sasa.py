"""Stand-alone self-attention: known values, other implementations, the paper's parameter and MAC counts."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from opbench.api import Maker, Nchw, Unsupported
from opbench.registry import Registry

SASA = Registry.discover().load("sasa")
Params = SASA.params
BORDERS = ("zero", "mask")

# ResNet-50: channels, extent, projection weights, shared and per-head embeddings, MMAC of projections and of the core.
RESNET50 = [
    (64, 56, 12288, 56, 448, "38.54", "29.50"),
    (128, 56, 49152, 112, 896, "154.14", "59.01"),
    (128, 28, 49152, 112, 896, "38.54", "14.75"),
    (256, 28, 196608, 224, 1792, "154.14", "29.50"),
    (256, 14, 196608, 224, 1792, "38.54", "7.38"),
    (512, 14, 786432, 448, 3584, "154.14", "14.75"),
    (512, 7, 786432, 448, 3584, "38.54", "3.69"),
]


@pytest.mark.parametrize(("channels", "extent", "weights", "shared", "per_head", "projections", "core"), RESNET50)
def test_resnet50_layers_cost_what_the_formulas_say(
    channels: int, extent: int, weights: int, shared: int, per_head: int, projections: str, core: str
) -> None:
    assert SASA.cost is not None
    shape = Nchw(1, channels, extent, extent)
    for embedding, embedded in (("shared", shared), ("per_head", per_head)):
        cost = SASA.cost(Params(embedding=embedding), shape)
        assert cost.parameters == weights + embedded
        assert millions(cost.core.forward.dense) == core
        assert millions(cost.layer.forward.dense - cost.core.forward.dense) == projections


@pytest.mark.parametrize(("inputs", "outputs", "heads", "k"), [(8, 8, 2, 3), (6, 12, 3, 5), (64, 128, 8, 7)])
def test_parameters_are_three_projections_and_two_embeddings(inputs: int, outputs: int, heads: int, k: int) -> None:
    options = {"out_channels": outputs, "heads": heads, "kernel_size": k}
    assert parameters(inputs, **options) == 3 * inputs * outputs + outputs // heads * k
    assert parameters(inputs, **options, embedding="per_head") == 3 * inputs * outputs + outputs * k
    assert parameters(inputs, **options, projection="grouped") == 3 * inputs * outputs // heads + outputs // heads * k


def test_only_zero_keys_outside_the_image_still_have_a_position() -> None:
    assert SASA.cost is not None
    # A 3x3 window on 5x4 pixels: 9 * 20 taps, (15 - 2) * (12 - 2) of them in the image.
    every, inside = 9 * 20, 13 * 10
    for border, positions in (("zero", every), ("mask", inside)):
        core = SASA.cost(Params(kernel_size=3, heads=2, border=border), Nchw(6, 8, 5, 4)).core
        assert core.forward.dense == 6 * 8 * 3 * every
        assert core.backward.dense == 6 * 8 * 8 * every
        assert core.forward.in_bounds == 6 * 8 * (2 * inside + positions)
        assert core.backward.in_bounds == 6 * 8 * (5 * inside + 3 * positions)


@pytest.mark.parametrize("embedding", ["shared", "per_head"])
@pytest.mark.parametrize("border", BORDERS)
def test_reference_agrees_with_one_query_at_a_time(border: str, embedding: str) -> None:
    p = Params(kernel_size=3, heads=2, border=border, embedding=embedding)
    q, k, v, rel_h, rel_w = tensors = inputs(p, Nchw(2, 8, 5, 3))
    rel_h, rel_w = (rel if embedding == "per_head" else rel.expand(2, -1, -1) for rel in (rel_h, rel_w))
    expected = torch.zeros_like(v)
    for n, h, y, x in itertools.product(range(2), range(2), range(5), range(3)):
        logits, values = [], []
        for a, b in itertools.product(range(3), range(3)):
            row, column = y + a - 1, x + b - 1
            inside = 0 <= row < 5 and 0 <= column < 3
            if not inside and border == "mask":
                continue
            key = k[n, h, :, row, column] if inside else torch.zeros(4, dtype=torch.float64)
            values.append(v[n, h, :, row, column] if inside else torch.zeros(4, dtype=torch.float64))
            logits.append(q[n, h, :, y, x] @ (key + torch.cat([rel_h[h, :, a], rel_w[h, :, b]])))
        expected[n, h, :, y, x] = torch.stack(logits).softmax(0) @ torch.stack(values)
    torch.testing.assert_close(SASA.reference(p, *tensors), expected)


def test_a_window_over_the_whole_image_without_positions_is_global_attention() -> None:
    p = Params(kernel_size=9, heads=2, border="mask", out_channels=4)
    layer = make_layer(6, p)
    torch.nn.init.zeros_(layer.rel_h)
    torch.nn.init.zeros_(layer.rel_w)
    x = normal(2, 6, 5, 4)
    q, k, v = (project(x).reshape(2, 2, 2, 20).mT for project in (layer.query, layer.key, layer.value))
    expected = F.scaled_dot_product_attention(q, k, v, scale=1.0).mT.reshape(2, 4, 5, 4)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize(("a", "b"), [(0, 0), (0, 2), (1, 1), (2, 1)])
def test_embedding_of_one_row_and_one_column_selects_that_tap(a: int, b: int) -> None:
    """Rows answer to the first half of a head, columns to the second; a zero key outside can be selected too."""
    p = Params(kernel_size=3, heads=2)
    q, v = torch.ones(1, 2, 4, 5, 6, dtype=torch.float64), normal(1, 2, 4, 5, 6)
    rel_h, rel_w = torch.zeros(2, 2, 3, dtype=torch.float64)
    rel_h[:, a], rel_w[:, b] = 1e4, 1e4
    expected = F.pad(v, (1, 1, 1, 1))[..., a : a + 5, b : b + 6]
    assert torch.equal(SASA.reference(p, q, torch.zeros_like(q), v, rel_h, rel_w), expected)


def test_a_query_of_zeros_averages_its_window() -> None:
    q = torch.zeros(1, 1, 2, 4, 4, dtype=torch.float64)
    rel = normal(2, 1, 3)
    tensors = (q, normal(*q.shape), torch.ones_like(q), *rel)
    shares = torch.tensor([[4, 6, 6, 4], [6, 9, 9, 6], [6, 9, 9, 6], [4, 6, 6, 4]], dtype=torch.float64) / 9
    zero, mask = (SASA.reference(Params(kernel_size=3, heads=1, border=border), *tensors) for border in BORDERS)
    torch.testing.assert_close(zero, shares.expand_as(zero))
    torch.testing.assert_close(mask, torch.ones_like(mask))


def test_borders_differ_only_where_a_window_leaves_the_image() -> None:
    shape = Nchw(2, 8, 9, 8)
    tensors = inputs(Params(kernel_size=5, heads=2), shape)
    zero, mask = (SASA.reference(Params(kernel_size=5, heads=2, border=border), *tensors) for border in BORDERS)
    same = torch.isclose(zero, mask).all(dim=(0, 1, 2))
    interior = torch.zeros(9, 8, dtype=torch.bool)
    interior[2:-2, 2:-2] = True
    assert torch.equal(same, interior)


@pytest.mark.parametrize("embedding", ["shared", "per_head"])
@pytest.mark.parametrize("border", BORDERS)
def test_gradients_are_the_five_products_with_features_and_the_one_with_positions(border: str, embedding: str) -> None:
    p = Params(kernel_size=3, heads=2, border=border, embedding=embedding)
    tensors = [tensor.requires_grad_() for tensor in inputs(p, Nchw(2, 8, 5, 4))]
    output = SASA.reference(p, *tensors)
    go = normal(*output.shape)
    actual = torch.autograd.grad(output, tensors, go)
    for found, expected in zip(actual, gradients(p, go, *(tensor.detach() for tensor in tensors)), strict=True):
        torch.testing.assert_close(found, expected)


def gradients(p: Any, go: Tensor, q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> tuple[Tensor, ...]:
    """The backward as formulas: softmax gradient, then the products that need no scatter but for gk and gv."""
    taps = list(itertools.product(range(3), range(3)))
    r = [torch.cat([rel_h[..., a], rel_w[..., b]], dim=-1)[..., None, None] for a, b in taps]
    logits = torch.stack([(q * (seen(k, *tap) + r_i)).sum(2) for tap, r_i in zip(taps, r, strict=True)])
    if p.border == "mask":
        inside = torch.stack([seen(torch.ones_like(q[:, :, 0]), *tap) for tap in taps])
        logits = torch.where(inside > 0, logits, -torch.inf)
    attention = logits.softmax(0)
    da = torch.stack([(go * seen(v, *tap)).sum(2) for tap in taps])
    dlogit = (attention * (da - (attention * da).sum(0))).unsqueeze(3)

    gq, gk, gv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    g_rel_h, g_rel_w = torch.zeros_like(rel_h), torch.zeros_like(rel_w)
    for i, (a, b) in enumerate(taps):
        gq += dlogit[i] * (seen(k, a, b) + r[i])
        gk += scattered(dlogit[i] * q, a, b)
        gv += scattered(attention[i].unsqueeze(2) * go, a, b)
        gr = (dlogit[i] * q).sum((0, 3, 4) if p.embedding == "per_head" else (0, 1, 3, 4))
        g_rel_h[..., a] += gr[..., :2]
        g_rel_w[..., b] += gr[..., 2:]
    return gq, gk, gv, g_rel_h, g_rel_w


@pytest.mark.parametrize("border", BORDERS)
def test_unscaled_logits_beyond_float16_do_not_overflow(border: str) -> None:
    p = Params(kernel_size=3, heads=1, border=border)
    q = torch.full((1, 1, 8, 4, 4), 200.0, dtype=torch.float16)
    rel = torch.zeros(2, 4, 3, dtype=torch.float16)
    y = SASA.reference(p, q, q, torch.ones_like(q), *rel)
    # 320 000 for a key in the image, 0 for one outside: all weight lies inside.
    assert torch.equal(y, torch.ones_like(y))


@pytest.mark.parametrize(("height", "width"), [(6, 4), (7, 5), (1, 3)])
def test_stride_pools_after_attention_over_the_pixels_there_are(height: int, width: int) -> None:
    full, pooled = (make_layer(8, Params(kernel_size=3, heads=2, stride=stride)) for stride in (1, 2))
    pooled.load_state_dict(full.state_dict())
    x = normal(2, 8, height, width)
    y, actual = full(x), pooled(x)
    assert actual.shape == (2, 8, -(-height // 2), -(-width // 2))
    for row, column in itertools.product(range(actual.shape[2]), range(actual.shape[3])):
        block = y[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        torch.testing.assert_close(actual[:, :, row, column], block.mean((2, 3)))


def test_grouped_projections_are_dense_ones_with_blocks() -> None:
    grouped, dense = (
        make_layer(6, Params(kernel_size=3, heads=3, out_channels=12, projection=projection))
        for projection in ("grouped", "dense")
    )
    state = grouped.state_dict()
    for name in ("query.weight", "key.weight", "value.weight"):
        state[name] = torch.block_diag(*state[name].flatten(1).unflatten(0, (3, 4)))[:, :, None, None]
    dense.load_state_dict(state)
    x = normal(2, 6, 5, 4)
    torch.testing.assert_close(grouped(x), dense(x))


def test_a_head_sees_its_own_channels_only() -> None:
    p = Params(kernel_size=3, heads=2, projection="grouped")
    x = normal(1, 8, 4, 5).requires_grad_()
    make_layer(8, p)(x)[:, :4].square().sum().backward()
    assert x.grad is not None
    assert bool((x.grad[:, :4] != 0).all())
    assert bool((x.grad[:, 4:] == 0).all())


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"kernel_size": 4}, "kernel_size must be odd integer ≥ 1, got 4"),
        ({"heads": 0}, "heads must be integer ≥ 1, got 0"),
        ({"stride": 3}, "stride must be 1 or 2, got 3"),
        ({"border": "masked"}, "border must be 'zero' or 'mask', got 'masked'; did you mean 'mask'?"),
        ({"embedding": "per head"}, "embedding must be 'shared' or 'per_head'"),
        ({"projection": "depthwise"}, "projection must be 'dense' or 'grouped'"),
    ],
)
def test_illegal_options_are_refused_with_the_legal_ones(option: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as raised:
        Params(**option)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("channels", "option", "message"),
    [
        (12, {"heads": 8}, "12 output channels are not 8 heads of an even width"),
        (12, {"heads": 4}, "12 output channels are not 4 heads of an even width"),
        (9, {"heads": 4, "out_channels": 8, "projection": "grouped"}, "4 heads do not divide 9 input channels"),
    ],
)
def test_channels_that_do_not_fit_the_heads_are_unsupported(
    channels: int, option: dict[str, Any], message: str
) -> None:
    p = Params(**option)
    with pytest.raises(Unsupported, match=message):
        make_layer(channels, p)
    with pytest.raises(Unsupported, match=message):
        parameters(channels, **option)


def inputs(p: Any, shape: Nchw) -> list[Tensor]:
    make = Maker(torch.float64, generator=torch.Generator().manual_seed(2))
    return list(SASA.inputs(p, shape, make).values())


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def make_layer(channels: int, p: Any) -> Any:
    assert SASA.layer is not None
    torch.manual_seed(4)
    return SASA.layer(channels, p, SASA.reference).double()


def parameters(channels: int, **options: Any) -> int:
    assert SASA.cost is not None
    return SASA.cost(Params(**options), Nchw(1, channels, 5, 5)).parameters


def millions(count: int) -> str:
    return f"{count / 1e6:.2f}"


def seen(x: Tensor, a: int, b: int) -> Tensor:
    """What tap (a, b) of a 3x3 window sees at each position."""
    height, width = x.shape[-2:]
    return F.pad(x, (1, 1, 1, 1))[..., a : a + height, b : b + width]


def scattered(x: Tensor, a: int, b: int) -> Tensor:
    """The adjoint of `seen`: each position's value where its tap (a, b) looked."""
    return seen(x, 2 - a, 2 - b)
