"""Cores and caches, as Linux describes some real processors."""

from pathlib import Path

import psutil

from opbench.measure.processor import (
    FALLBACK_CACHE_BYTES,
    Cache,
    last_level_bytes,
    last_level_cache_bytes,
    parse_bytes,
    physical_cores,
    within_quota,
)

MIB = 1 << 20


def describe(root: Path, processor: int, *caches: tuple[str, str, str, str]) -> None:
    for index, (level, kind, size, shared) in enumerate(caches):
        folder = root / f"cpu{processor}" / "cache" / f"index{index}"
        folder.mkdir(parents=True)
        for name, text in {"level": level, "type": kind, "size": size, "shared_cpu_list": shared}.items():
            (folder / name).write_text(text + "\n")


def test_sizes_are_read_in_any_unit() -> None:
    assert parse_bytes("48K") == 48 * 1024
    assert parse_bytes("32768K") == 32 * MIB
    assert parse_bytes("2M") == 2 * MIB
    assert parse_bytes("512") == 512
    assert parse_bytes("") == parse_bytes("unknown") == 0


def test_a_cache_shared_by_all_counts_once(tmp_path: Path) -> None:
    for processor in range(4):
        own = (("1", "Data", "48K", str(processor)), ("1", "Instruction", "32K", str(processor)))
        describe(tmp_path, processor, *own, ("3", "Unified", "32768K", "0-3"))
    assert last_level_cache_bytes(1, tmp_path) == 32 * MIB
    assert last_level_cache_bytes(4, tmp_path) == 32 * MIB


def test_threads_fill_the_caches_of_several_dies(tmp_path: Path) -> None:
    """An EPYC has a last-level cache for every eight cores."""
    for processor in (0, 8, 16):
        describe(tmp_path, processor, ("3", "Unified", "32768K", f"{processor}-{processor + 7}"))
    assert last_level_cache_bytes(1, tmp_path) == 32 * MIB
    assert last_level_cache_bytes(2, tmp_path) == 64 * MIB
    assert last_level_cache_bytes(24, tmp_path) == 96 * MIB


def test_instructions_are_not_data() -> None:
    caches = [Cache(1, "Data", 100, "0"), Cache(2, "Instruction", 900, "0")]
    assert last_level_bytes(caches, 1) == 100


def test_a_machine_that_does_not_tell_gets_the_fallback(tmp_path: Path) -> None:
    assert last_level_cache_bytes(1, tmp_path) == FALLBACK_CACHE_BYTES == 32 * MIB


def test_a_quota_rounds_down_to_whole_cores() -> None:
    assert within_quota(8, None) == 8
    assert within_quota(8, 2.5) == 2
    assert within_quota(2, 64.0) == 2
    assert within_quota(8, 0.5) == 1


def test_this_process_has_at_least_one_core_and_no_more_than_it_may_run_on() -> None:
    assert 1 <= physical_cores() <= len(psutil.Process().cpu_affinity() or [])
    assert last_level_cache_bytes() > 1 << 16
