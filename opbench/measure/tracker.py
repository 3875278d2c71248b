"""Follows every tensor storage a computation makes, from birth to release; on meta tensors it foresees a peak.

A storage is counted once however many views it has, with the bytes it was asked for. What a kernel allocates for
itself never becomes a tensor and is not seen.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def storage_bytes(tensors: Iterable[Tensor], *, without: Iterable[Tensor] = ()) -> int:
    """Bytes of the distinct storages of some tensors, except those that other tensors lie in too."""
    left_out = {id(storage) for storage in map(Tensor.untyped_storage, without)}
    # The dictionary keeps the storages alive, so that an id stays that of one storage.
    storages = {id(storage): storage for storage in map(Tensor.untyped_storage, tensors)}
    return sum(storage.nbytes() for key, storage in storages.items() if key not in left_out)


def peak_bytes_on_meta(call: Callable[[], object]) -> int:
    """Foresee the most bytes a call will hold, tensors it reads included, by running it on meta tensors.

    A lower bound: scratch space inside an operation is not seen. Nothing is allocated and nothing computed.
    """
    storages = LiveStorages()
    with storages:
        call()
    return storages.found_bytes + storages.phase_peak_bytes()


class LiveStorages(TorchDispatchMode):
    """While entered, keeps account of the storages that operations make."""

    found_bytes: int
    """Bytes that operations read and that were there before."""
    live_bytes: int
    """Bytes made and not yet released."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found_bytes = self.live_bytes = self._base_bytes = self._peak_bytes = 0
        self._known: dict[int, _Storage] = {}

    def settle(self) -> None:
        """Release what only cyclic references still hold."""
        gc.collect()

    def start_phase(self) -> None:
        """Take what is live now as the base."""
        self._base_bytes = self._peak_bytes = self.live_bytes

    def phase_peak_bytes(self) -> int:
        """Most bytes live at once since the last `start_phase`, or ever, above the base."""
        return self._peak_bytes - self._base_bytes

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # A constant written in Python enters as the argument of lift_fresh, but was not there before.
        if func is not torch.ops.aten.lift_fresh.default:
            for storage in _storages((args, kwargs)):
                if id(storage) not in self._known:
                    self._add(storage, born=False)
        results = func(*args, **(kwargs or {}))
        for storage in _storages(results):
            known = self._known.get(id(storage))
            if known is None:
                self._add(storage, born=True)
            elif known.bytes != storage.nbytes():
                # `resize_` and `out=` let a storage grow.
                self._release(id(storage))
                self._add(storage, born=known.born)
        return results

    def _add(self, storage: UntypedStorage, *, born: bool) -> None:
        key, bytes_ = id(storage), storage.nbytes()
        self._known[key] = _Storage(weakref.ref(storage, lambda _: self._release(key)), bytes_, born)
        if born:
            self.live_bytes += bytes_
            self._peak_bytes = max(self._peak_bytes, self.live_bytes)
        else:
            self.found_bytes += bytes_

    def _release(self, key: int) -> None:
        storage = self._known.pop(key)
        self.live_bytes -= storage.bytes if storage.born else 0


class _Storage(NamedTuple):
    alive: weakref.ref[UntypedStorage]
    bytes: int
    born: bool


def _storages(tree: object) -> list[UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
