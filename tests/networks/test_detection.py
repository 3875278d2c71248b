"""Detectors: what is frozen, what their heads give, and the parts that counters disagree about."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest
import torch

from opbench.errors import Unsupported
from opbench.networks import catalogue, published, rounding
from opbench.networks.conventions import totals
from opbench.networks.slot import slots
from tests.networks.building import built, parameters, steps, trained

TINY: dict[str, Any] = {"blocks": (1, 1, 1, 1)}


@pytest.mark.parametrize("name", ["retinanet-resnet-50", "retinanet-rednet-50-slot-neck"])
def test_retinanet_scores_and_places_nine_boxes_at_every_pixel_of_five_levels(name: str) -> None:
    output, idle = trained(built(name, classes=3, **TINY), 1, 3, 97, 161)
    # 1/8 to 1/128 of the image, each rounded up.
    pixels = 13 * 21 + 7 * 11 + 4 * 6 + 2 * 3 + 1 * 2
    assert output.shape == (1, pixels * 9 * (3 + 4))
    assert all(path.startswith(("backbone.stem.", "backbone.stages.0.")) for path in idle)


def test_the_stem_and_the_first_stage_are_frozen() -> None:
    with torch.device("meta"):
        network = built("faster-rcnn-resnet-50")
    frozen = {path for path, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == {
        path for path, _ in network.named_parameters() if path.startswith(("backbone.stem.", "backbone.stages.0."))
    }


def test_a_frozen_convolution_has_no_gradient_of_its_weights_to_compute() -> None:
    for step in steps("retinanet-resnet-50"):
        if step.kind == "convolution":
            frozen = step.path.startswith(("backbone.stem.", "backbone.stages.0."))
            assert step.work.backward == (1 if frozen else 2) * step.work.forward


@pytest.mark.parametrize("name", ["mask-rcnn-resnet-50", "mask-rcnn-rednet-50-slot-neck-head"])
def test_an_rcnn_gives_proposals_at_every_pixel_and_a_thousand_boxes_and_a_hundred_masks(name: str) -> None:
    with torch.device("meta"):
        output = built(name, **TINY).eval()(torch.empty(2, 3, 97, 161))
    pixels = 25 * 41 + 13 * 21 + 7 * 11 + 4 * 6 + 2 * 3
    assert output.shape == (2, pixels * (3 + 12) + 1000 * (81 + 320) + 100 * 80 * 28 * 28)


def test_an_rcnn_is_counted_and_not_run() -> None:
    with pytest.raises(Unsupported, match="RoIAlign"):
        catalogue.find("mask-rcnn-rednet-50").require_measurable()
    catalogue.find("retinanet-rednet-50").require_measurable()


def test_mask_rcnn_is_faster_rcnn_with_a_head_for_masks() -> None:
    with torch.device("meta"):
        faster, mask = built("faster-rcnn-resnet-50"), built("mask-rcnn-resnet-50")
    convolutions, enlarging, logits = 4 * (256 * 256 * 9 + 256), 256 * 256 * 4 + 256, 256 * 80 + 80
    assert parameters(mask) - parameters(faster) == convolutions + enlarging + logits


def test_old_counters_are_blind_to_the_tail_of_the_mask_head() -> None:
    found = totals(steps("mask-rcnn-resnet-50"))
    enlarging = 14 * 14 * 256 * 256 * 4 + 28 * 28 * 256
    logits = 28 * 28 * (256 * 80 + 80)
    assert found["C1"] - found["C1-old"] == 100 * (enlarging + logits)


def test_synchronised_norms_compute_the_same_and_are_not_counted() -> None:
    x = torch.randn(1, 3, 65, 97)
    plain, synchronised = (built("retinanet-resnet-50", norm=norm, **TINY).eval() for norm in ("batch", "synchronised"))
    assert torch.equal(plain(x), synchronised(x))
    found = steps("retinanet-resnet-50")
    norms = 2 * sum(step.outputs for step in found if step.kind == "batch_norm")
    assert totals(found)["C1"] - totals(steps("retinanet-resnet-50", norm="synchronised"))["C1"] == norms > 0


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("faster-rcnn-rednet-50-slot-neck", 4),
        ("faster-rcnn-rednet-50-slot-neck-head", 5),
        ("mask-rcnn-rednet-50-slot-neck", 4),
        ("mask-rcnn-rednet-50-slot-neck-head", 9),
        ("retinanet-rednet-50-slot-neck", 3),
    ],
)
def test_slots_in_the_neck_and_the_head_come_on_top_of_the_backbone_and_its_stem(name: str, more: int) -> None:
    with torch.device("meta"):
        assert len(slots(built(name))) == 16 + 1 + more


def test_another_operator_fills_neck_and_head() -> None:
    with torch.device("meta"):
        output = built("mask-rcnn-rednet-50-slot-neck-head", "sasa", **TINY).eval()(torch.empty(1, 3, 65, 97))
    assert len(output) == 1


@pytest.mark.parametrize("row", [row for row in published.rows() if any(row.saved)], ids=lambda row: row.network)
def test_percentages_come_from_figures_with_one_decimal(row: published.Published) -> None:
    [baseline] = [other for other in published.rows() if _stands_for(other, row)]
    pairs = ((row.parameters, baseline.parameters), (row.flops, baseline.flops))
    assert row.saved == tuple(_saved(*pair) for pair in pairs)


def _stands_for(other: published.Published, row: published.Published) -> bool:
    return other.network == row.baseline and other.table.startswith("Involution: the ")


def _saved(ours: str, baseline: str) -> str:
    share = _tenths(ours) / _tenths(baseline)
    return f"{(100 * (1 - share)).quantize(Decimal('0.1'), ROUND_HALF_UP)} %"


def _tenths(figure: str) -> Decimal:
    number, _ = rounding.split(figure)
    # The paper has 25.6 for RedNet-101's 25.65, the half rounded to even.
    return number.quantize(Decimal("0.1"))
