"""Spans the cases of a suite: a list is a loop, the key written first is the outermost one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from opbench.cases import Case, Nchw
from opbench.networks import catalogue
from opbench.suite.document import Document
from opbench.suite.faults import KeyPath
from opbench.suite.schema import Axes, Pixels, SuiteFile

PARTS = ("batch", "channels", "resolution")
"""Keys that together give an input size in place of a shape."""
_BUILT_IN = ("implementation", "dtype", "memory_format", "pass", "scope")
_AXES = ("operator", "network", "shape", *PARTS, *_BUILT_IN)
_PARAM = "params."


@dataclass(frozen=True)
class Axis:
    """The values of one key, and where they are written."""

    path: KeyPath
    values: tuple[Any, ...]

    def places(self) -> Iterator[tuple[KeyPath, Any]]:
        """Each value with its own path."""
        return (((*self.path, index), value) for index, value in enumerate(self.values))


@dataclass(frozen=True)
class Block:
    """A case entry, or one of its includes, with all that it inherits."""

    path: KeyPath
    axes: Mapping[str, Axis]
    """By key, parameters as 'params.kernel_size'; the first is the outermost loop."""
    excludes: tuple[Block, ...] = ()

    @property
    def params(self) -> dict[str, Axis]:
        """The axes of the operator's parameters, by parameter."""
        return {key.removeprefix(_PARAM): axis for key, axis in self.axes.items() if key.startswith(_PARAM)}

    @property
    def missing(self) -> list[str]:
        """What every case needs and nobody gives."""
        if "network" in self.axes:
            return []  # It has an operator of its own, and an input.
        size = [] if "shape" in self.axes else [key for key in PARTS if key not in self.axes]
        if len(size) == len(PARTS):
            size = ["shape"]
        return ([] if "operator" in self.axes else ["operator"]) + size

    @property
    def operators(self) -> tuple[str, ...]:
        """The operators it names, or its networks' own."""
        if "operator" in self.axes:
            return self.axes["operator"].values
        named = self.axes["network"].values if "network" in self.axes else ()
        return tuple(dict.fromkeys(known.operator for name in named if (known := catalogue.networks().get(name))))

    @property
    def count(self) -> int:
        """Combinations, exclusions not yet made; the implementations of a case are not counted."""
        return math.prod(len(axis.values) for key, axis in self.axes.items() if key != "implementation")

    def cases(self) -> Iterator[Case]:
        """Every combination, in the order run."""
        loops = {key: axis.values for key, axis in self.axes.items() if key != "implementation"}
        for values in itertools.product(*loops.values()):
            yield _case(dict(zip(loops, values, strict=True)))


def blocks(document: Document, file: SuiteFile) -> list[Block]:
    """Return the entries and their includes in order; both ways of giving a size in one place is a fault."""
    built_in = {key: Axis((), getattr(Axes(), _field(key))) for key in _BUILT_IN}
    base = _over(_named(document, file.defaults, ("defaults",)), built_in)
    found = []
    for index, entry in enumerate(file.cases):
        path: KeyPath = ("cases", index)
        own = _named(document, entry, path)
        single = {key: axis for key, axis in own.items() if len(axis.values) == 1}
        excludes = [(*path, "exclude", place) for place in range(len(entry.exclude))]
        includes = [(*path, "include", place) for place in range(len(entry.include))]
        found.append(
            Block(
                path,
                _over(own, base),
                tuple(
                    Block(place, _named(document, item, place))
                    for place, item in zip(excludes, entry.exclude, strict=True)
                ),
            )
        )
        for place, item in zip(includes, entry.include, strict=True):
            found.append(Block(place, _over(_named(document, item, place), _over(single, base))))
    return found


def facts(case: Case) -> dict[str, Any]:
    """What an exclusion can name about a case, as an entry would spell it."""
    return {
        "operator": case.operator,
        **({"network": case.network} if case.network else {}),
        "shape": case.shape,
        "batch": case.shape.batch,
        "channels": case.shape.channels,
        "resolution": Pixels(case.shape.height, case.shape.width),
        "dtype": case.dtype,
        "memory_format": case.memory_format,
        "pass": case.pass_,
        "scope": case.scope,
        **{_PARAM + name: value for name, value in case.params.items()},
    }


def _named(document: Document, axes: Axes, path: KeyPath) -> dict[str, Axis]:
    """The axes that a mapping names itself, in the order written."""
    found: dict[str, Axis] = {}
    written = document.get(path)
    for key in written if isinstance(written, dict) else ():
        if key == "params":
            found |= {_PARAM + name: Axis((*path, key, name), values) for name, values in axes.params.items()}
        elif key in _AXES and _field(key) in axes.model_fields_set:
            found[key] = Axis((*path, key), getattr(axes, _field(key)))
    if "shape" in found and any(key in found for key in PARTS):
        document.key_fault((*path, "shape"), "give either 'shape', or 'batch', 'channels' and 'resolution'")
    return found


def _over(own: Mapping[str, Axis], inherited: Mapping[str, Axis]) -> dict[str, Axis]:
    """Own axes, then the inherited ones they leave open; a size given one way replaces one given the other."""
    replaced = set(own)
    if "shape" in own:
        replaced |= set(PARTS)
    if any(key in own for key in PARTS):
        replaced |= {"shape"}
    return {**own, **{key: axis for key, axis in inherited.items() if key not in replaced}}


def _case(values: dict[str, Any]) -> Case:
    network = catalogue.find(values["network"]) if "network" in values else None
    usual = network.input if network else Nchw(1, 1, 1, 1)
    height, width = values.get("resolution", usual[2:])
    shape = values.get("shape") or Nchw(values.get("batch", usual[0]), values.get("channels", usual[1]), height, width)
    return Case(
        operator=values.get("operator") or (network.operator if network else ""),
        shape=shape,
        params={key.removeprefix(_PARAM): value for key, value in values.items() if key.startswith(_PARAM)},
        dtype=values["dtype"],
        memory_format=values["memory_format"],
        pass_=values["pass"],
        scope="network" if network else values["scope"],
        network=network.name if network else None,
    )


def _field(key: str) -> str:
    return "pass_" if key == "pass" else key
