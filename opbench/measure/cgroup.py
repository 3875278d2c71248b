"""What the control groups around this process allow it: processors and memory, cgroup version 2 or 1.

A limit on any level binds, so the tightest from the process's own group up to the root is the one that counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")

# A container often sees the names of its host's groups in /proc but only its own group in /sys; then the mount
# point itself is the group, which walking up to it finds.
_MOUNT = Path("sys/fs/cgroup")


def cpu_quota(root: Path = ROOT) -> float | None:
    """Processors' worth of time the process may use, 1.5 say; None without a limit."""
    limits = [parse_cpu_max(_read(group / "cpu.max")) for group in _groups(root, "")]
    limits += [
        parse_cpu_max(f"{_read(group / 'cpu.cfs_quota_us')} {_read(group / 'cpu.cfs_period_us')}")
        for group in _groups(root, "cpu")
    ]
    return min((limit for limit in limits if limit is not None), default=None)


def free_memory_bytes(root: Path = ROOT) -> int | None:
    """Bytes the process may still allocate before a limit is met; None without a limit.

    File pages that the kernel would give up first are counted as free.
    """
    free = [
        parse_free_bytes(
            _read(group / "memory.max"), _read(group / "memory.current"), _read(group / "memory.stat"), "inactive_file"
        )
        for group in _groups(root, "")
    ]
    free += [
        parse_free_bytes(
            _read(group / "memory.limit_in_bytes"),
            _read(group / "memory.usage_in_bytes"),
            _read(group / "memory.stat"),
            "total_inactive_file",
        )
        for group in _groups(root, "memory")
    ]
    return min((bytes_ for bytes_ in free if bytes_ is not None), default=None)


def parse_groups(text: str) -> dict[str, str]:
    """Read /proc/self/cgroup: the group's path by controller; '' is version 2's single hierarchy."""
    groups = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        groups.update(dict.fromkeys(controllers.split(","), path))
    return groups


def parse_cpu_max(text: str) -> float | None:
    """'150000 100000' -> 1.5; None for 'max', for version 1's '-1', and where there is nothing to read."""
    quota, _, period = text.partition(" ")
    return int(quota) / int(period) if quota.isdecimal() and period.strip().isdecimal() else None


def parse_free_bytes(limit: str, used: str, stat: str, reclaimable: str) -> int | None:
    """Return limit - used + the named line of memory.stat; None for 'max' and where there is nothing to read."""
    if not (limit.isdecimal() and used.isdecimal()):
        return None
    pages = dict(line.split() for line in stat.splitlines() if len(line.split()) == 2)
    return max(0, int(limit) - int(used) + int(pages.get(reclaimable, "0")))


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folder of the process's group and of each group around it, those that exist."""
    path = parse_groups(_read(root / "proc/self/cgroup")).get(controller)
    if path is None:
        return
    mounts: tuple[Path, ...] = (
        (root / _MOUNT / controller,) if controller else (root / _MOUNT, root / _MOUNT / "unified")
    )
    for mount in mounts:
        group = mount / path.lstrip("/")
        yield from filter(Path.is_dir, (group, *_up_to(group, mount)))


def _up_to(group: Path, mount: Path) -> list[Path]:
    return [parent for parent in group.parents if parent.is_relative_to(mount)]


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
