"""The names in published checkpoints, written down from the official code, all have their place in our networks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import opbench.networks
from tests.networks.building import built

FOLDER = Path(opbench.networks.__file__).parent / "checkpoint_keys"
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def keys(family: str) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((FOLDER / f"{family}.yaml").read_text())
    return read


def mapped(name: str, rules: list[list[str]]) -> str:
    for pattern, replacement in rules:
        if re.fullmatch(pattern, name):
            name = re.sub(pattern, replacement, name)
    return name


@pytest.mark.parametrize("family", ["lsnet", "rednet"])
def test_the_examples_are_what_the_rules_make(family: str) -> None:
    document = keys(family)
    for name, expected in document["example"]:
        assert mapped(name, document["rules"]) == expected


@pytest.mark.parametrize("family", ["lsnet", "rednet"])
def test_every_rule_is_needed(family: str) -> None:
    document = keys(family)
    originals = list(lsnet([4, 6, 8, 10]) if family == "lsnet" else rednet([3, 4, 6, 3]))
    everything = {mapped(name, document["rules"]) for name in originals}
    for place in range(len(document["rules"])):
        without = document["rules"][:place] + document["rules"][place + 1 :]
        assert {mapped(name, without) for name in originals} != everything


@pytest.mark.parametrize(
    ("name", "blocks"),
    [("lsnet-t", [0, 2, 8, 10]), ("lsnet-s", [1, 2, 8, 10]), ("lsnet-b", [4, 6, 8, 10])],
)
def test_every_name_of_an_lsnet_has_its_place(name: str, blocks: list[int]) -> None:
    _match(name, list(lsnet(blocks)), keys("lsnet")["rules"])


@pytest.mark.parametrize(
    ("depth", "blocks"),
    [(26, [1, 2, 4, 1]), (38, [2, 3, 5, 2]), (50, [3, 4, 6, 3]), (101, [3, 4, 23, 3]), (152, [3, 8, 36, 3])],
)
def test_every_name_of_a_rednet_has_its_place(depth: int, blocks: list[int]) -> None:
    _match(f"rednet-{depth}", list(rednet(blocks)), keys("rednet")["rules"])


def _match(name: str, originals: list[str], rules: list[list[str]]) -> None:
    with torch.device("meta"):
        ours = built(name).state_dict().keys()
    found = [mapped(original, rules) for original in originals]
    assert len(set(found)) == len(found)
    assert set(found) == set(ours)


def lsnet(blocks: list[int]) -> Iterator[str]:
    """Names in the state dict of jameslahm/lsnet's LSNet."""
    for place in (0, 2, 4):
        yield from _fusable(f"patch_embed.{place}")
    for stage, count in enumerate(blocks, 1):
        chain = f"blocks{stage}"
        start = 0
        if stage > 1:
            yield from _fusable(f"{chain}.0")
            yield from _fusable(f"{chain}.1")
            start = 2
        for depth in range(count):
            block = f"{chain}.{start + depth}"
            if depth % 2 == 0:
                yield from _fusable(f"{block}.mixer.conv")
                yield from _fusable(f"{block}.mixer.conv1")
                for layer in ("fc1", "fc2"):
                    yield from (f"{block}.se.{layer}.weight", f"{block}.se.{layer}.bias")
            elif stage == 4:
                yield from (f"{block}.mixer.m.attention_biases", f"{block}.mixer.m.attention_bias_idxs")
                for part in ("qkv", "proj.1", "dw"):
                    yield from _fusable(f"{block}.mixer.m.{part}")
            else:
                for part in ("cv1", "cv2", "cv3"):
                    yield from _fusable(f"{block}.mixer.lkp.{part}")
                for part in ("cv4", "norm"):
                    yield from (f"{block}.mixer.lkp.{part}.weight", f"{block}.mixer.lkp.{part}.bias")
                yield from _norm(f"{block}.mixer.bn")
            yield from _fusable(f"{block}.ffn.m.pw1")
            yield from _fusable(f"{block}.ffn.m.pw2")
    yield from _norm("head.bn")
    yield from ("head.l.weight", "head.l.bias")


def rednet(blocks: list[int]) -> Iterator[str]:
    """Names in the state dict of an mmcls classifier with d-li14/involution's RedNet."""
    for place in (0, 4):
        yield f"backbone.stem.{place}.conv.weight"
        yield from _norm(f"backbone.stem.{place}.bn")
    yield from _involution("backbone.stem.1")
    yield from _norm("backbone.stem.2")
    for stage, count in enumerate(blocks, 1):
        for place in range(count):
            block = f"backbone.layer{stage}.{place}"
            yield from (f"{block}.conv1.weight", f"{block}.conv3.weight")
            yield from _involution(f"{block}.conv2")
            for norm in ("bn1", "bn2", "bn3"):
                yield from _norm(f"{block}.{norm}")
            if place == 0:
                yield f"{block}.downsample.0.weight"
                yield from _norm(f"{block}.downsample.1")
    yield from ("head.fc.weight", "head.fc.bias")


def _fusable(path: str) -> Iterator[str]:
    yield f"{path}.c.weight"
    yield from _norm(f"{path}.bn")


def _involution(path: str) -> Iterator[str]:
    yield f"{path}.conv1.conv.weight"
    yield from _norm(f"{path}.conv1.bn")
    yield from (f"{path}.conv2.conv.weight", f"{path}.conv2.conv.bias")


def _norm(path: str) -> Iterator[str]:
    yield from (f"{path}.{item}" for item in NORM)
