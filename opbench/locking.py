"""Locks between processes: one run appends to a directory at a time, and one run measures on a device at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from opbench.errors import MachineError


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold a lock file while the block runs; False where another process holds it.

    Of all locks the kind that a forked child does not inherit, and that dies with its process.
    """
    with path.open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            yield False
        else:
            yield True


@contextlib.contextmanager
def lease(device: str, *, shared: bool) -> Iterator[bool]:
    """Hold a device while the block runs: two runs at once would slow each other down, and neither would know why.

    Gives whether this run has the device for itself; it need not where sharing is allowed.

    Args:
        device: 'cpu', or 'cuda-' and the UUID of a GPU, so that each has a lease of its own.
        shared: whether another run may measure on it at the same time.

    Raises:
        MachineError: another run of this user measures on the device, and sharing it is not allowed.
    """
    with locked(Path(tempfile.gettempdir()) / f"opbench-{os.getuid()}-{device}.lock") as alone:
        if not alone and not shared:
            kind = "CPU" if device == "cpu" else "GPU"
            raise MachineError(
                f"another opbench run is measuring on this machine's {kind}; wait for it to end, "
                "or, to measure all the same, with the results flagged, pass --allow-noisy"
            )
        yield alone
