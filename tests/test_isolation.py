"""Whatever a function does in a child, the parent learns how it ended and goes on."""

import contextlib
import ctypes
import gc
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from opbench.ending import Ending
from opbench.errors import MachineError, PluginError, Unsupported
from opbench.isolation import run

MEMORY_BYTES = 256 << 20
SLEEPER = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]


def isolated(function: Callable[..., Any], *arguments: Any, seconds: float = 60, memory: int | None = None) -> Ending:
    return run(function, *arguments, timeout_seconds=seconds, memory_bytes=memory)


def open_files() -> list[int]:
    gc.collect()  # What an earlier test has left open may be closed at any time.
    return [int(file.name) for file in Path("/proc/self/fd").iterdir() if file.exists()]


def zombies() -> set[int]:
    """Children that have ended and that nobody has waited for; those of other tests are theirs to wait for."""
    return {child.pid for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE}


# How a child may end.


def test_a_result_comes_back() -> None:
    assert isolated(lambda a, b: {"sum": a + b}, 2, 3) == Ending(kind="returned", value={"sum": 5})


def test_a_child_changes_nothing_here() -> None:
    values: list[int] = []
    assert isolated(values.append, 1).kind == "returned"
    assert values == []


def test_unsupported_is_an_answer() -> None:
    def refuse() -> None:
        raise Unsupported("3 channels do not divide by 2")

    assert isolated(refuse) == Ending(kind="unsupported", reason="3 channels do not divide by 2")


def test_an_error_says_where_and_what() -> None:
    def fail() -> None:
        raise KeyError("x")

    line = fail.__code__.co_firstlineno + 1
    assert isolated(fail) == Ending(kind="failed", reason=f"test_isolation.py:{line}: KeyError: 'x'")


def test_an_error_of_opbench_speaks_for_itself() -> None:
    def fail() -> None:
        raise PluginError("ops/box/plugin.py: there is no OPERATOR")

    assert isolated(fail).reason == "ops/box/plugin.py: there is no OPERATOR"


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("\n\n  first\nsecond"), "ValueError: first"),
        (ValueError(), "ValueError"),
        (ValueError("x" * 100_000), "ValueError: " + "x" * 50),
        (ValueError("half a \ud83d pair"), "ValueError: half a \\ud83d pair"),
        (MuteError(), "MuteError"),
        (SystemExit(0), "SystemExit: 0"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (BaseExceptionGroup("two", [ValueError("a"), SystemExit(1)]), "BaseExceptionGroup: two (2 sub-exceptions)"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_a_reason_is_one_short_line_that_can_be_stored(error: BaseException, said: str) -> None:
    def fail() -> None:
        raise error

    ending = isolated(fail)
    assert ending.kind == "failed"
    assert f": {said}" in ending.reason
    assert len(ending.reason) <= 400
    assert len(ending.reason.encode().splitlines()) == 1


def segfault() -> None:
    ctypes.string_at(0)


def abort() -> None:
    os.abort()


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (segfault, "signal 11 (SIGSEGV) at __init__.py:"),
        (abort, f"signal 6 (SIGABRT) at test_isolation.py:{abort.__code__.co_firstlineno + 1}"),
        (lambda: os._exit(0), "exit status 0 without a result"),
        (lambda: os._exit(7), "exit status 7 without a result"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "signal 9 (SIGKILL); the system may have run out of memory"),
        (lambda: os.kill(os.getpid(), 35), "signal 35"),
    ],
)
def test_a_crash_is_told_by_its_signal_or_status(function: Callable[[], Any], reason: str) -> None:
    ending = isolated(function)
    assert ending.kind == "crashed"
    assert ending.reason.startswith(reason)


def test_a_crash_quotes_the_last_words() -> None:
    def die() -> None:
        print("begin")
        os.write(2, b"library: fatal: no such kernel\n\n")
        os._exit(3)

    assert isolated(die).reason == "exit status 3 without a result: library: fatal: no such kernel"


def test_a_result_that_cannot_be_sent_is_a_failure() -> None:
    ending = isolated(lambda: threading.Lock())
    assert ending.kind == "failed"
    assert "cannot pickle" in ending.reason


def test_nothing_is_imported_here_to_read_a_result(tmp_path: Path) -> None:
    (tmp_path / "opbench_only_in_child.py").write_text("class Thing: pass\n")

    def result() -> Any:
        sys.path.insert(0, str(tmp_path))
        import opbench_only_in_child  # type: ignore[import-not-found]

        return opbench_only_in_child.Thing()

    ending = isolated(result)
    assert ending.kind == "failed"
    assert "opbench_only_in_child" in ending.reason
    assert "opbench_only_in_child" not in sys.modules


def test_a_result_may_be_larger_than_any_pipe() -> None:
    assert isolated(lambda: bytes(range(256)) * (1 << 18)).value == bytes(range(256)) * (1 << 18)


def test_a_fork_within_the_child_does_not_answer_twice() -> None:
    def fork() -> int:
        os.fork()
        return 1

    for _ in range(20):
        assert isolated(fork) == Ending(kind="returned", value=1)


def test_rubbish_instead_of_a_result_is_a_failure() -> None:
    before = open_files()

    def scribble() -> None:
        for number in set(open_files()) - set(before):
            with contextlib.suppress(OSError):
                os.write(number, b"\x04" + bytes(7) + b"rubbish")

    ending = isolated(scribble)
    assert ending.kind == "failed"
    assert "cannot be read" in ending.reason


# Time.


def test_a_child_that_hangs_is_killed() -> None:
    assert isolated(time.sleep, 600, seconds=0.3) == Ending(kind="timed_out", reason="no result after 0.3 s")


def test_a_child_that_hangs_without_its_files_is_killed() -> None:
    def hang() -> None:
        os.closerange(0, 1024)
        time.sleep(600)

    assert isolated(hang, seconds=0.3).kind == "timed_out"


def test_the_parent_is_told_that_time_passes() -> None:
    ticks: list[None] = []
    run(time.sleep, 0.5, timeout_seconds=60, tick=lambda: ticks.append(None))
    assert ticks


# Descendants.


def start_sleepers(file: Path) -> list[int]:
    """Start one process in the child's session, one in its own, and one whose parent is gone."""
    orphan = f"import subprocess; print(subprocess.Popen({SLEEPER!r}, start_new_session=True, stdout=2).pid)"
    found = [
        subprocess.Popen(SLEEPER).pid,
        subprocess.Popen(SLEEPER, start_new_session=True).pid,
        int(subprocess.run([sys.executable, "-S", "-c", orphan], stdout=-1, check=True).stdout),
    ]
    file.write_text(" ".join(map(str, found)))
    return found


def alive(file: Path) -> list[int]:
    pids = [int(pid) for pid in file.read_text().split()]
    assert len(pids) == 3
    return [pid for pid in pids if psutil.pid_exists(pid)]


@pytest.mark.parametrize(
    ("after", "kind"),
    [(lambda: None, "returned"), (lambda: time.sleep(600), "timed_out"), (segfault, "crashed")],
    ids=["returns", "hangs", "crashes"],
)
def test_what_a_child_started_ends_with_it(tmp_path: Path, after: Callable[[], None], kind: str) -> None:
    file = tmp_path / "pids"

    def start() -> None:
        start_sleepers(file)
        after()

    assert isolated(start, seconds=3).kind == kind
    assert alive(file) == []


def test_processes_that_were_there_before_live_on() -> None:
    with subprocess.Popen(SLEEPER) as other:
        assert isolated(lambda: 1).value == 1
        assert other.poll() is None
        other.kill()


PARENT = """
import os, sys, time
from opbench.isolation import run

def child():
    open(sys.argv[1], "w").write(str(os.getpid()))
    time.sleep(600)

run(child, timeout_seconds=600)
"""


def parent_of_a_child(tmp_path: Path) -> tuple[subprocess.Popen[bytes], psutil.Process]:
    file = tmp_path / "child"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(file)], stderr=subprocess.PIPE)
    while not (file.exists() and file.read_text()):
        assert parent.poll() is None
        time.sleep(0.01)
    return parent, psutil.Process(int(file.read_text()))


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    parent, child = parent_of_a_child(tmp_path)
    parent.kill()
    parent.communicate()
    child.wait(timeout=60)


def test_an_interrupt_kills_the_child_and_goes_on_to_the_caller(tmp_path: Path) -> None:
    parent, child = parent_of_a_child(tmp_path)
    parent.send_signal(signal.SIGINT)
    _, said = parent.communicate(timeout=60)
    assert said.decode().splitlines()[-1] == "KeyboardInterrupt"
    assert not child.is_running()


def test_an_interrupt_raised_by_the_tick_kills_the_child(tmp_path: Path) -> None:
    file = tmp_path / "child"

    def child() -> None:
        file.write_text(str(os.getpid()))
        time.sleep(600)

    def interrupt() -> None:
        if file.exists() and file.read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(child, timeout_seconds=60, tick=interrupt)
    assert not psutil.pid_exists(int(file.read_text()))


def test_interrupts_reach_this_process_again_after_a_run() -> None:
    isolated(lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


# Memory.


def hoard() -> None:
    kept = []
    while True:
        kept.append(bytes(1 << 20))


def hoard_small() -> None:
    kept: list[object] = []
    while True:
        kept = [kept, {}]


def hoard_tensors() -> None:
    import torch

    kept = []
    while True:
        kept.append(torch.empty(16 << 20, dtype=torch.uint8))


def catch_and_blame_another() -> None:
    try:
        hoard()
    except MemoryError as error:
        raise PluginError("box/plugin.py: cannot be imported") from error


def hoard_in_c() -> None:
    library = ctypes.CDLL(None)
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    while library.malloc(16 << 20):
        pass
    os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n")
    os.abort()


@pytest.mark.parametrize(
    "function",
    [hoard, hoard_tensors, catch_and_blame_another, hoard_in_c, lambda: "x" * (1 << 50)],
)
def test_exhausted_memory_is_told_as_such(function: Callable[[], object]) -> None:
    import torch  # noqa: F401 - as in a run, so that the limit is on top of it

    ending = isolated(function, memory=MEMORY_BYTES)
    assert ending.kind == "out_of_memory"
    assert ending.reason


def test_memory_exhausted_to_the_last_small_object_is_contained() -> None:
    """The interpreter itself may not survive that, but the parent is told one thing or the other."""
    import torch  # noqa: F401 - as in a run, so that the limit is on top of it

    ending = isolated(hoard_small, memory=MEMORY_BYTES)
    assert ending.kind in ("out_of_memory", "crashed")
    assert ending.reason


def test_a_result_too_large_to_send_is_told_as_such() -> None:
    ending = isolated(lambda: [bytes(MEMORY_BYTES // 2)], memory=MEMORY_BYTES)
    assert ending.kind == "out_of_memory"


def test_the_operating_system_may_say_it_in_its_own_words() -> None:
    def fail() -> None:
        raise OSError(12, os.strerror(12))

    assert isolated(fail).kind == "out_of_memory"


def test_within_the_limit_memory_is_there() -> None:
    assert isolated(lambda: len(bytes(MEMORY_BYTES // 4)), memory=MEMORY_BYTES).value == MEMORY_BYTES // 4


# A GPU.

RESERVED_BYTES = 1 << 40


def reserve() -> int:
    """Take addresses as CUDA does: far more than there is memory, none of it to be touched."""
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *3 * [ctypes.c_int], ctypes.c_long]
    inaccessible, private_anonymous_unreserved = 0, 0x02 | 0x20 | 0x4000
    address = library.mmap(None, RESERVED_BYTES, inaccessible, private_anonymous_unreserved, -1, 0)
    return 0 if address in (None, ctypes.c_void_p(-1).value) else RESERVED_BYTES


def test_only_a_child_that_uses_a_gpu_may_reserve_more_addresses_than_memory() -> None:
    assert run(reserve, timeout_seconds=60, memory_bytes=MEMORY_BYTES).value == 0
    assert run(reserve, timeout_seconds=60, memory_bytes=MEMORY_BYTES, cuda=True).value == RESERVED_BYTES


@pytest.mark.parametrize("function", [hoard, hoard_tensors])
def test_the_memory_of_the_host_stays_guarded_for_a_child_that_uses_a_gpu(function: Callable[[], object]) -> None:
    import torch  # noqa: F401 - as in a run, so that the limit is on top of it

    ending = run(function, timeout_seconds=60, memory_bytes=MEMORY_BYTES, cuda=True)
    assert ending.kind == "out_of_memory"


def test_a_child_that_uses_a_gpu_numbers_gpus_as_nvml_does() -> None:
    order = run(os.environ.get, "CUDA_DEVICE_ORDER", timeout_seconds=60, cuda=True).value
    assert order == os.environ.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert run(os.environ.get, "CUDA_DEVICE_ORDER", timeout_seconds=60).value == os.environ.get("CUDA_DEVICE_ORDER")


def test_a_parent_that_has_initialised_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert isolated(lambda: 1).value == 1
    with pytest.raises(RuntimeError, match="CUDA is initialised in this process"):
        run(lambda: 1, timeout_seconds=60, cuda=True)


def raising(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


ILLEGAL = (
    "CUDA error: an illegal memory access was encountered\n"
    "Search for `cudaErrorIllegalAddress' in https://docs.nvidia.com/ for more information.\n"
    "CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be "
    "incorrect."
)
SHORTAGE = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 139.81 GiB of which 5.75 GiB is "
    "free. Including non-PyTorch memory, this process has 134.05 GiB memory in use. Of the allocated memory 133.00 GiB "
    "is allocated by PyTorch, and 10.50 MiB is reserved by PyTorch but unallocated. If reserved but unallocated memory "
    "is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
)


def test_an_error_that_spoils_the_process_is_a_crash_with_its_name() -> None:
    ending = run(raising(RuntimeError(ILLEGAL)), timeout_seconds=60, cuda=True)
    line = raising.__code__.co_firstlineno + 2
    words = f"cudaErrorIllegalAddress: an illegal memory access was encountered, noticed at test_isolation.py:{line}"
    assert ending == Ending(kind="crashed", reason=words)


def test_a_crash_of_the_process_names_the_error_that_it_died_of() -> None:
    def die() -> None:
        os.write(2, b"terminate called after throwing an instance of 'c10::AcceleratorError'\n  what():  ")
        os.write(2, ILLEGAL.encode() + b"\nException raised from c10_cuda_check_implementation\nframe #0: ...\n")
        os.abort()

    ending = isolated(die)
    assert ending.kind == "crashed"
    assert ending.reason.startswith("signal 6 (SIGABRT) at test_isolation.py:")
    assert ending.reason.endswith(": cudaErrorIllegalAddress: an illegal memory access was encountered")


def test_a_launch_that_was_refused_leaves_the_process_usable_and_is_a_failure() -> None:
    ending = isolated(raising(RuntimeError("CUDA error: invalid configuration argument\nSearch for ...")))
    assert ending.kind == "failed"
    assert ending.reason.endswith("RuntimeError: CUDA error: invalid configuration argument")


def test_a_gpu_s_shortage_of_memory_is_told_with_its_sizes() -> None:
    import torch

    ending = isolated(raising(torch.OutOfMemoryError(SHORTAGE)))
    assert ending.kind == "out_of_memory"
    told = "tried to allocate 20.00 GiB beyond the 133.00 GiB it held; 5.75 GiB of the GPU's 139.81 GiB were free"
    assert ending.reason.endswith(told)
    assert ending.reason.startswith("test_isolation.py:")


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cudaErrorMemoryAllocation: out of memory",
        "Out of memory allocating 1,024 bytes (allocated so far: 0 bytes).",
    ],
)
def test_libraries_say_the_same_in_other_words(words: str) -> None:
    ending = isolated(raising(RuntimeError(words)))
    assert ending.kind == "out_of_memory"
    assert words in ending.reason


def test_an_error_behind_another_counts() -> None:
    def fail() -> None:
        try:
            raise RuntimeError(ILLEGAL)
        except RuntimeError as error:
            raise PluginError("box/plugin.py: cannot be compiled") from error

    assert isolated(fail).kind == "crashed"


LOST = "CUDA error: no CUDA-capable device is detected"


def test_a_lost_gpu_ends_the_run_of_those_that_need_it() -> None:
    with pytest.raises(MachineError) as caught:
        run(raising(RuntimeError(LOST)), timeout_seconds=60, cuda=True)
    assert str(caught.value).startswith(
        "the GPU cannot be used any more (cudaErrorNoDevice: no CUDA-capable device is detected, noticed at "
    )
    assert "\n" not in str(caught.value)


def test_a_plugin_that_reaches_for_a_gpu_where_none_is_asked_for_costs_itself_only() -> None:
    ending = isolated(raising(RuntimeError(LOST)))
    assert ending.kind == "crashed"
    assert ending.device_lost


def test_a_tensor_is_no_result() -> None:
    """Reading one that lies on a GPU would initialise CUDA here."""
    import torch

    ending = isolated(lambda: {"x": torch.ones(2)})
    assert ending.kind == "failed"
    assert "it holds a tensor, and only plain data is sent" in ending.reason


ON_A_GPU = """
import json
import torch
from opbench.isolation import import_early, run

import_early()

def illegal():
    x = torch.zeros(4, device="cuda")
    return float(x[torch.tensor([1 << 30], device="cuda")].sum())

def shortage():
    return torch.empty(1 << 45, dtype=torch.uint8, device="cuda").sum().item()

def works():
    return float((torch.ones(1 << 20, device="cuda") + 1).sum())

endings = [run(function, timeout_seconds=120, cuda=True) for function in (works, illegal, shortage, works)]
assert not torch.cuda.is_initialized()
print(json.dumps([[ending.kind, ending.value, ending.reason] for ending in endings]))
"""


@pytest.mark.gpu
def test_what_goes_wrong_on_a_gpu_costs_its_own_child_only() -> None:
    done = subprocess.run([sys.executable, "-c", ON_A_GPU], capture_output=True, text=True, check=True)
    works, illegal, shortage, again = json.loads(done.stdout)
    assert works[:2] == again[:2] == ["returned", 2.0 * (1 << 20)]
    assert illegal[0] == "crashed"
    assert "cudaErrorAssert" in illegal[2]
    assert shortage[0] == "out_of_memory"
    assert "tried to allocate" in shortage[2]


NO_CUDA = """
import os
os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
from opbench import environment, isolation, readiness
isolation.import_early()
import torch
asked = []
torch._C._cuda_getDeviceCount = lambda: asked.append("getDeviceCount") or 0
torch._C._cuda_init = lambda: asked.append("init")
environment.capture()
readiness.why_no_gpu()
assert os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] == "1"
assert not torch.cuda.is_initialized()
assert asked == [], asked
"""


def test_nothing_that_a_parent_does_touches_cuda() -> None:
    """Asking the runtime for devices would be enough: it initialises the driver, which survives no fork."""
    subprocess.run([sys.executable, "-c", NO_CUDA], check=True)


# Files and output.


def test_output_is_never_printed(capfd: pytest.CaptureFixture[str]) -> None:
    def speak() -> None:
        print("python speaks")
        print("python errs", file=sys.stderr)
        os.write(1, b"c speaks\n")
        os.system("echo a shell speaks; echo a shell errs >&2")
        print("x" * (8 << 20))
        raise ValueError("done")

    assert isolated(speak).reason.endswith("ValueError: done")
    assert capfd.readouterr() == ("", "")


def test_what_this_process_has_not_yet_printed_is_printed_once(tmp_path: Path) -> None:
    script = "from opbench.isolation import run; print('once', end=''); run(print, timeout_seconds=60)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("once", "")


def test_endless_output_does_not_fill_the_disk() -> None:
    def babble() -> None:
        line = b"x" * (16 << 20)
        while True:
            os.write(1, line)

    ending = isolated(babble)
    assert ending.kind == "failed"
    assert "File too large" in ending.reason


def test_a_child_reads_no_input() -> None:
    assert isolated(lambda: sys.stdin.read() if sys.stdin else os.read(0, 1).decode()).value == ""


def test_files_do_not_leak() -> None:
    def fail() -> None:
        raise ValueError

    isolated(lambda: 1)
    before, others = open_files(), zombies()
    for _ in range(70):
        isolated(lambda: 1)
        isolated(fail)
        isolated(os._exit, 1)
    assert open_files() == before
    assert zombies() <= others, "a child was not waited for"


# Threads.

THREADS = """
import torch
from opbench.isolation import import_early, run

def child():
    torch.set_num_threads(2)
    return float((torch.ones(1 << 20) + 1).sum()), float((torch.ones(512, 512) @ torch.ones(512, 512)).sum())

import_early()
for _ in range(3):
    ending = run(child, timeout_seconds=60)
    assert ending.value == (2.0 * (1 << 20), 512.0 ** 3), ending
"""


def test_openmp_works_in_a_child() -> None:
    subprocess.run([sys.executable, "-c", THREADS], check=True)


def test_an_ending_is_plain_data() -> None:
    ending = Ending(kind="crashed", reason="signal 11 (SIGSEGV)")
    assert pickle.loads(pickle.dumps(ending)) == ending
