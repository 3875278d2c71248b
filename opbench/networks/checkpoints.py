"""Published weights for our networks: their names are mapped, everything must fit, and no pickled code is run."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from opbench.errors import OpbenchError, said

FOLDER = Path(__file__).parent / "checkpoint_keys"
"""One YAML file for each naming scheme: `rules`, pairs of a pattern for a whole name and its replacement."""

_WRAPPERS = ("state_dict", "model", "model_state")
"""Keys under which files keep the tensors when they hold more than those."""
_SHOWN = 5

Rules = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """How the tensors of a file fit a network."""

    names: str
    """The naming scheme that fits best: a file of `checkpoint_keys`, or 'opbench'."""
    loaded: int
    missing: tuple[str, ...] = ()
    """Tensors of the network that the file lacks."""
    unexpected: tuple[str, ...] = ()
    """Tensors of the file, by its own names, that the network lacks, or that want the place of another."""
    misshaped: tuple[str, ...] = ()
    """Tensors of both whose shapes differ, with the shapes."""

    @property
    def fits(self) -> bool:
        """Whether every tensor has its place."""
        return not (self.missing or self.unexpected or self.misshaped)

    def __str__(self) -> str:
        faults = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": self.misshaped}
        told = [f"{len(names)} {fault}: {_some(names)}" for fault, names in faults.items() if names]
        return "; ".join(told) or f"{self.loaded} tensors, all in their places"


def load_checkpoint(network: nn.Module, path: Path | str) -> Report:
    """Load a file of weights into a network; it is left as it was unless every tensor fits.

    Args:
        network: as `opbench.networks.build` makes it.
        path: a file written by torch.save, with our names or with those that d-li14/involution or jameslahm/lsnet use.

    Raises:
        OpbenchError: the file cannot be read without running code in it, holds no tensors, or does not fit; the message
            names what is missing, unexpected or of another shape.
    """
    tensors = _read(Path(path))
    state = network.state_dict()
    report, mapped = min(
        (_fitted(names, rules, tensors, state) for names, rules in _schemes().items()), key=lambda fit: _faults(fit[0])
    )
    if not report.fits:
        raise OpbenchError(f"{path} does not fit the network (names of {report.names}): {report}")
    network.load_state_dict(mapped, strict=True)
    return report


def _read(path: Path) -> dict[str, Tensor]:
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise OpbenchError(f"cannot read {path}: {error.strerror or said(error)}") from error
    except pickle.UnpicklingError as error:
        why = "it holds more than tensors and plain values, and to read that could run code"
        raise OpbenchError(f"{path} is not loaded: {why}; save its state_dict alone") from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise OpbenchError(f"{path} is no file of torch.save: {said(error) or type(error).__name__}") from error
    for key in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    if not isinstance(found, Mapping) or not found or not all(isinstance(item, Tensor) for item in found.values()):
        raise OpbenchError(f"{path} holds no tensors by name, neither at the top nor under {', '.join(_WRAPPERS)}")
    return {str(name): tensor for name, tensor in found.items()}


def _schemes() -> dict[str, Rules]:
    """Every naming scheme; our own comes first, so that it wins where nothing fits."""
    schemes: dict[str, Rules] = {"opbench": ()}
    for file in sorted(FOLDER.glob("*.yaml")):
        schemes[file.stem] = tuple((pattern, to) for pattern, to in yaml.safe_load(file.read_text())["rules"])
    return schemes


def _fitted(
    names: str, rules: Rules, tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> tuple[Report, dict[str, Tensor]]:
    """Map the names of a file and compare them with a network's."""
    mapped: dict[str, Tensor] = {}
    unexpected, misshaped = [], []
    for original, tensor in tensors.items():
        name = renamed(original, rules)
        if name not in state or name in mapped:
            unexpected.append(original)
            continue
        mapped[name] = tensor
        if tensor.shape != state[name].shape:
            misshaped.append(f"{original} {_shape(tensor)} for {name} {_shape(state[name])}")
    report = Report(
        names=names,
        loaded=len(mapped),
        missing=tuple(name for name in state if name not in mapped),
        unexpected=tuple(unexpected),
        misshaped=tuple(misshaped),
    )
    return report, mapped


def renamed(name: str, rules: Rules) -> str:
    """Apply every rule in order, each to what the rules before it have left."""
    for pattern, replacement in rules:
        if re.fullmatch(pattern, name):
            name = re.sub(pattern, replacement, name)
    return name


def _faults(report: Report) -> int:
    return len(report.missing) + len(report.unexpected) + len(report.misshaped)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest
