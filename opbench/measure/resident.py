"""The most memory this process has held at once, by the kernel's own record.

Linux keeps the high-water mark of the resident size and resets it when 5 is written to /proc/self/clear_refs. What
was freed must have gone back to the kernel before, or a new allocation would hide in it; where the C library is
glibc it is asked to do so.
"""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")

# glibc's mallopt: blocks of at least so many bytes get pages of their own, which leave the process when freed.
_M_MMAP_THRESHOLD = -3
_OWN_PAGES_FROM_BYTES = 64 << 10


class HighWater:
    """The high-water mark as a meter of phases."""

    base_bytes: int

    def settle(self) -> None:
        """Collect garbage and hand free memory back to the kernel, now and, for large blocks, from now on."""
        gc.collect()
        library = ctypes.CDLL(None)
        if hasattr(library, "mallopt") and hasattr(library, "malloc_trim"):
            library.mallopt(_M_MMAP_THRESHOLD, _OWN_PAGES_FROM_BYTES)
            library.malloc_trim(0)

    def start_phase(self) -> None:
        """Lower the mark to what is resident now, and take that as the base.

        Raises:
            OSError: this system's mark cannot be lowered.
        """
        CLEAR.write_text("5")
        self.base_bytes = parse_high_water(STATUS.read_text())

    def phase_peak_bytes(self) -> int:
        """Most bytes resident at once since the last `start_phase`, above the base."""
        return parse_high_water(STATUS.read_text()) - self.base_bytes


def is_supported() -> bool:
    """Whether this system keeps a mark and lets it be lowered."""
    try:
        HighWater().start_phase()
    except (OSError, ValueError):
        return False
    return True


def parse_high_water(status: str) -> int:
    """Read VmHWM out of /proc/self/status, in bytes.

    Raises:
        ValueError: there is no such line.
    """
    found = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    if found is None:
        raise ValueError("no VmHWM in the process's status")
    return int(found[1]) << 10
