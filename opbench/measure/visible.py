"""Which GPUs a process may use, in the order CUDA numbers them, told without initialising CUDA."""

from __future__ import annotations

import re
from collections.abc import Sequence


def visible_uuids(variable: str | None, uuids: Sequence[str]) -> tuple[str, ...]:
    """UUIDs that CUDA sees, in its order: what index 0 means comes first.

    As CUDA does, entries are read up to the first that names no GPU, and an entry that comes twice leaves nothing.

    Args:
        variable: the value of `CUDA_VISIBLE_DEVICES`; None where it is not set.
        uuids: those of all GPUs by PCI bus: the order of the driver, and of CUDA with `CUDA_DEVICE_ORDER=PCI_BUS_ID`.
    """
    if variable is None:
        return tuple(uuids)
    found: list[str] = []
    for entry in variable.split(","):
        uuid = _named(entry.strip(), uuids)
        if uuid is None:
            break
        if uuid in found:
            return ()
        found.append(uuid)
    return tuple(found)


def _named(entry: str, uuids: Sequence[str]) -> str | None:
    """'1' is the second GPU, 'GPU-8932f937' the only one whose UUID begins so, a whole 'MIG-…' an instance of one."""
    if number := re.match(r"\+?\d+", entry):
        index = int(number[0])
        return uuids[index] if index < len(uuids) else None
    if entry.startswith("MIG-"):
        return entry
    matching = [uuid for uuid in uuids if uuid.startswith(entry)] if entry.startswith("GPU-") else []
    return matching[0] if len(matching) == 1 else None
