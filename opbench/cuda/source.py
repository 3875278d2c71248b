"""A `.cu` file beside its plugin, and every header it includes."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from opbench.cuda.plan import Extents, Launch, Operations, Scalar

CPU_FOLDER = Path(__file__).parent / "cpu"
"""Where the header lies that stands in for CUDA's execution model."""

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"', re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """A `.cu` file; headers are looked for beside it, then among the shared ones."""

    path: Path

    @classmethod
    def beside(cls, module_file: str, name: str = "kernel.cu") -> Source:
        """Return the file of that name in the folder of a module, given as its `__file__`."""
        return cls(Path(module_file).resolve().parent / name)

    def launch(
        self,
        kernel: str,
        *,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        shared_bytes: int = 0,
        scalars: tuple[Scalar, ...] = (),
        operations: Operations | None = None,
        alternatives: tuple[str, ...] = (),
    ) -> Launch:
        """Plan a launch of one of this file's kernels; see `Launch`."""
        return Launch(
            source=self,
            kernel=kernel,
            grid=_extents(grid),
            block=_extents(block),
            shared_bytes=shared_bytes,
            scalars=scalars,
            operations=operations,
            alternatives=alternatives,
        )

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where its headers are looked for, in order."""
        return (self.path.parent, *_shared_headers())

    @functools.cached_property
    def text(self) -> str:
        """What the file holds."""
        return self.path.read_text(encoding="utf-8")

    @functools.cached_property
    def headers(self) -> dict[str, str]:
        """Text of every header it includes, directly or not, by the name it is included by.

        Raises:
            FileNotFoundError: a header is in none of the folders.
        """
        found: dict[str, str] = {}
        waiting = _includes(self.text)
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            places = [folder / name for folder in self.folders]
            place = next((place for place in places if place.is_file()), None)
            if place is None:
                if (CPU_FOLDER / name).is_file():
                    continue  # Only a CPU run includes it.
                raise FileNotFoundError(f"{self.path} includes {name!r}, which is not in {places[0].parent}")
            found[name] = place.read_text(encoding="utf-8")
            waiting += _includes(found[name])
        return found

    @functools.cached_property
    def digest(self) -> str:
        """Changes with every byte of the file and of its headers."""
        parts = [self.text, *(part for item in sorted(self.headers.items()) for part in item)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _extents(given: tuple[int, ...]) -> Extents:
    """(x), (x, y) or (x, y, z) -> (x, y, z)."""
    x, y, z = (*given, 1, 1)[:3]
    return x, y, z


def _includes(text: str) -> list[str]:
    return _INCLUDE.findall(text)


@functools.cache
def _shared_headers() -> tuple[Path, ...]:
    from opbench.registry import PACKAGE

    spec = importlib.util.find_spec(PACKAGE)
    return tuple(Path(root) / "_cuda" for root in (spec.submodule_search_locations or ())) if spec else ()
