"""Limits of control groups, in trees as version 2, version 1 and containers lay them out."""

from pathlib import Path

import pytest

from opbench.measure.cgroup import cpu_quota, free_memory_bytes, parse_cpu_max, parse_free_bytes, parse_groups

GIB = 1 << 30
UNLIMITED_V1 = "9223372036854771712"


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def test_groups_are_found_by_controller() -> None:
    text = "4:memory:/docker/1f\n1:cpu,cpuacct:/docker/1f\n0::/user.slice/session:1\n"
    assert parse_groups(text) == {
        "memory": "/docker/1f",
        "cpu": "/docker/1f",
        "cpuacct": "/docker/1f",
        "": "/user.slice/session:1",
    }


def test_quota_is_a_quotient() -> None:
    assert parse_cpu_max("150000 100000") == 1.5
    assert parse_cpu_max("max 100000") is None
    assert parse_cpu_max("-1 100000") is None
    assert parse_cpu_max("") is None


def test_pages_that_can_be_dropped_are_free() -> None:
    stat = "anon 700\ninactive_file 50\nactive_file 30\n"
    assert parse_free_bytes("1000", "780", stat, "inactive_file") == 270
    assert parse_free_bytes("1000", "1200", "", "inactive_file") == 0
    assert parse_free_bytes("max", "780", stat, "inactive_file") is None


def test_version_2_tightest_level_binds(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/outer/inner",
            "sys/fs/cgroup/outer/cpu.max": "400000 100000",
            "sys/fs/cgroup/outer/memory.max": str(2 * GIB),
            "sys/fs/cgroup/outer/memory.current": str(GIB),
            "sys/fs/cgroup/outer/inner/cpu.max": "max 100000",
            "sys/fs/cgroup/outer/inner/memory.max": str(8 * GIB),
            "sys/fs/cgroup/outer/inner/memory.current": str(GIB),
            "sys/fs/cgroup/outer/inner/memory.stat": f"inactive_file {GIB}",
        },
    )
    assert cpu_quota(tmp_path) == 4.0
    assert free_memory_bytes(tmp_path) == GIB


def test_version_1_has_a_tree_for_each_controller(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/job\n1:cpu,cpuacct:/job\n0::/",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "250000",
            "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": UNLIMITED_V1,
            "sys/fs/cgroup/memory/memory.usage_in_bytes": str(3 * GIB),
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": str(4 * GIB),
            "sys/fs/cgroup/memory/job/memory.usage_in_bytes": str(3 * GIB),
            "sys/fs/cgroup/memory/job/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB}",
        },
    )
    assert cpu_quota(tmp_path) == 2.5
    assert free_memory_bytes(tmp_path) == 2 * GIB


def test_a_container_that_sees_its_host_s_path_finds_its_own_group_at_the_mount(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"proc/self/cgroup": "0::/system.slice/docker-1f.scope", "sys/fs/cgroup/cpu.max": "50000 100000"},
    )
    assert cpu_quota(tmp_path) == 0.5


@pytest.mark.parametrize("groups", [{}, {"proc/self/cgroup": "0::/"}])
def test_no_group_is_no_limit(tmp_path: Path, groups: dict[str, str]) -> None:
    write(tmp_path, groups)
    assert cpu_quota(tmp_path) is None
    assert free_memory_bytes(tmp_path) is None
