"""Where compiled kernels are kept between runs."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def folder() -> Path:
    """The cache's folder: OPBENCH_CACHE where that is set, else opbench under the user's cache folder."""
    given = os.environ.get("OPBENCH_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "opbench"


def kept(kind: str, key: str, suffix: str, make: Callable[[Path], None]) -> Path:
    """Return the file made for a key, making it first unless it is there.

    Args:
        kind: subfolder of the cache.
        key: everything the file depends on.
        suffix: how its name ends.
        make: writes the file to a path of its own; the result appears under its name at once or not at all, so that
            processes can race for it.
    """
    place = folder() / kind / (hashlib.sha256(key.encode()).hexdigest()[:32] + suffix)
    if place.is_file():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
        draft = Path(scratch) / place.name
        make(draft)
        draft.replace(place)
    return place
