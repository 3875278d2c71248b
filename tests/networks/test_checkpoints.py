"""Published weights go into our networks whole or not at all, and no code in a file is run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from opbench.errors import OpbenchError
from opbench.networks import load_checkpoint
from tests.networks import test_checkpoint_keys as original
from tests.networks.building import built

TINY: dict[str, Any] = {"blocks": (1, 1, 1, 1), "classes": 7}


def small(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    network = built("rednet-26", **TINY)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    return network


def released(network: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of a network under the names of the official code."""
    rules = original.keys("rednet")["rules"]
    state = network.state_dict()
    return {name: state[original.mapped(name, rules)] for name in original.rednet([1, 1, 1, 1])}


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_weights_under_official_names_find_their_places(wrapper: str | None, tmp_path: Path) -> None:
    source, target = small(0), small(1)
    weights: Any = released(source)
    torch.save(weights if wrapper is None else {wrapper: weights, "meta": {"epoch": 130}}, tmp_path / "weights.pth")
    report = load_checkpoint(target, tmp_path / "weights.pth")
    assert (report.names, report.fits, report.loaded) == ("rednet", True, len(weights))
    assert str(report) == f"{len(weights)} tensors, all in their places"
    assert same(source, target)


def test_our_own_names_load_too(tmp_path: Path) -> None:
    source, target = small(0), small(1)
    torch.save(source.state_dict(), tmp_path / "ours.pth")
    assert load_checkpoint(target, tmp_path / "ours.pth").names == "opbench"
    assert same(source, target)


def test_what_does_not_fit_is_named_and_nothing_is_loaded(tmp_path: Path) -> None:
    source, target, untouched = small(0), small(1), small(1)
    weights = released(source)
    del weights["backbone.layer1.0.conv1.weight"]
    weights["backbone.layer9.weight"] = torch.zeros(1)
    weights["head.fc.weight"] = torch.zeros(5, 2048)
    torch.save(weights, tmp_path / "weights.pth")
    with pytest.raises(OpbenchError) as caught:
        load_checkpoint(target, tmp_path / "weights.pth")
    message = str(caught.value)
    assert "names of rednet" in message
    assert "1 missing: stages.0.0.reduce.0.weight" in message
    assert "1 unexpected: backbone.layer9.weight" in message
    assert "1 of another shape: head.fc.weight 5x2048 for head.weight 7x2048" in message
    assert same(target, untouched)


def test_the_released_stem_has_a_network_of_its_own(tmp_path: Path) -> None:
    source = built("rednet-26-released", **TINY)
    torch.save(released(source), tmp_path / "weights.pth")
    with pytest.raises(OpbenchError, match="2 of another shape"):
        load_checkpoint(small(1), tmp_path / "weights.pth")
    load_checkpoint(built("rednet-26-released", **TINY), tmp_path / "weights.pth")


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}, "trap": Trap(tmp_path / "sprung")}, tmp_path / "evil.pth")
    with pytest.raises(OpbenchError, match="is not loaded: it holds more than tensors and plain values"):
        load_checkpoint(small(0), tmp_path / "evil.pth")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"PK\x03\x04 torn"])
def test_what_is_no_file_of_weights_is_one_message(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(OpbenchError, match=r"file\.pth"):
        load_checkpoint(small(0), tmp_path / "file.pth")
    with pytest.raises(OpbenchError, match=r"cannot read .*absent"):
        load_checkpoint(small(0), tmp_path / "absent.pth")


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "file.pth")
    with pytest.raises(OpbenchError, match="holds no tensors by name"):
        load_checkpoint(small(0), tmp_path / "file.pth")
