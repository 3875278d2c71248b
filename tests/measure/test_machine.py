"""Whether a machine is fit to measure on, from what its kernel says."""

from pathlib import Path

import psutil
import pytest

from opbench.measure.machine import (
    available_bytes,
    cpu_pressure,
    judge,
    noise,
    parse_pressure,
    parse_stalled,
    stalled_seconds,
)

RECORDED = """\
some avg10=12.50 avg60=0.54 avg300=0.20 total=4016223
full avg10=3.00 avg60=0.00 avg300=0.00 total=0
"""


def test_pressure_is_the_share_of_the_last_ten_seconds() -> None:
    assert parse_pressure(RECORDED) == 0.125
    assert parse_pressure("full avg10=3.00 avg60=0.00 avg300=0.00 total=0\n") is None
    assert parse_pressure("") is None


def test_pressure_is_read_from_the_kernel_s_file(tmp_path: Path) -> None:
    (tmp_path / "cpu").write_text(RECORDED)
    assert cpu_pressure(tmp_path / "cpu") == 0.125
    assert cpu_pressure(tmp_path / "absent") is None


def test_stalled_time_is_the_kernel_s_running_total_in_microseconds(tmp_path: Path) -> None:
    (tmp_path / "cpu").write_text(RECORDED)
    assert stalled_seconds(tmp_path / "cpu") == 4.016223
    assert stalled_seconds(tmp_path / "absent") is None
    assert parse_stalled("full avg10=3.00 avg60=0.00 avg300=0.00 total=7\n") is None


def test_a_quiet_machine_has_nothing_to_say() -> None:
    assert judge(pressure=0.0, quota=None, threads=64) is None
    assert judge(pressure=0.0499, quota=2.0, threads=2) is None


def test_a_kernel_that_does_not_tell_is_not_refused() -> None:
    assert judge(pressure=None, quota=None, threads=1) is None


@pytest.mark.parametrize(
    ("pressure", "quota", "threads", "said"),
    [
        (0.125, None, 1, "in 12 % of the last ten seconds a task waited for a processor"),
        (0.05, None, 1, "in 5 % of"),
        (0.0, 1.5, 2, "allows 1.5 processors and 2 threads need 2"),
        (0.0, 0.5, 1, "allows 0.5 processors and 1 thread needs 1"),
    ],
)
def test_contention_is_told_with_the_way_to_go_on(
    pressure: float, quota: float | None, threads: int, said: str
) -> None:
    sentence = judge(pressure, quota, threads)
    assert sentence is not None
    assert said in sentence
    assert sentence.endswith("pass --allow-noisy")


def test_this_machine_is_judged_without_error() -> None:
    assert isinstance(noise(threads=1), str | None)
    assert 0 < available_bytes() <= psutil.virtual_memory().total
