"""Finding a kernel's headers, planning its launches, keeping what was compiled."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from opbench.cuda import Launch, Source, cache, kernel, on_cpu, recorded
from tests.cuda.scaling import CORE, SOURCE, Params


def launch(**changes: object) -> Launch:
    parts = {"kernel": "f", "grid": (1,), "block": (32,), "scalars": (1,), **changes}
    return SOURCE.launch(**parts)  # type: ignore[arg-type]


def test_a_header_beside_the_kernel_comes_before_a_shared_one(tmp_path: Path) -> None:
    (tmp_path / "kernel.cu").write_text('#include "device.cuh"\n  #  include "mine.cuh"\n')
    (tmp_path / "mine.cuh").write_text("// mine\n")
    source = Source(tmp_path / "kernel.cu")
    assert set(source.headers) >= {"device.cuh", "mine.cuh"}
    assert "SHARED_MEMORY" in source.headers["device.cuh"]
    (tmp_path / "device.cuh").write_text("// another\n")
    assert Source(tmp_path / "kernel.cu").headers["device.cuh"] == "// another\n"


def test_the_digest_changes_with_a_header_of_a_header(tmp_path: Path) -> None:
    for name, text in (("kernel.cu", '#include "a.cuh"'), ("a.cuh", '#include "b.cuh"'), ("b.cuh", "int b;")):
        (tmp_path / name).write_text(text)
    before = Source(tmp_path / "kernel.cu").digest
    assert before == Source(tmp_path / "kernel.cu").digest
    (tmp_path / "b.cuh").write_text("int c;")
    assert before != Source(tmp_path / "kernel.cu").digest


def test_a_header_that_is_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "kernel.cu").write_text('#include "nowhere.cuh"')
    with pytest.raises(FileNotFoundError, match=r"kernel\.cu includes 'nowhere\.cuh'"):
        _ = Source(tmp_path / "kernel.cu").headers


def test_the_argument_is_pointers_then_scalars_padded_like_a_c_struct() -> None:
    argument = launch(scalars=(7, 0.5, -1)).argument(pointers=2)
    assert len(argument) == 2 * 8 + 3 * 4 + 4
    assert struct.unpack_from("=QQifi", argument) == (0, 0, 7, 0.5, -1)
    assert len(launch(scalars=(7, 8)).argument(pointers=1)) == 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": (1, 65536)}, "grid"),
        ({"grid": (2**31,)}, "grid"),
        ({"block": (2048,)}, "1 to 1024 threads, not 2048"),
        ({"block": (0,)}, "1 to 1024 threads, not 0"),
        ({"scalars": (2**31,)}, "2147483648 does not fit an int"),
    ],
)
def test_a_launch_that_cuda_refuses_is_refused_when_planned(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        launch(**changes)


def test_a_launch_is_planned_once_for_the_same_shapes() -> None:
    planned = []

    @kernel
    def scale(p: Params, dtype: torch.dtype, x: torch.Size, factor: torch.Size, y: torch.Size) -> Launch:
        planned.append((dtype, tuple(x)))
        return SOURCE.launch("scale<float>", grid=(1,), block=(64,), scalars=(x[1], x[2] * x[3], x.numel()))

    x, factor = torch.ones(1, 3, 2, 2), torch.full((3,), 2.0)
    with on_cpu():
        for width in (2, 2, 3):
            y = torch.empty(1, 3, 2, width)
            scale(Params(), torch.ones(1, 3, 2, width), factor, y)
            assert torch.equal(y, torch.full_like(y, 2.0))
    assert planned == [(torch.float32, (1, 3, 2, 2)), (torch.float32, (1, 3, 2, 3))]
    assert x.sum() == 12


def test_meta_tensors_are_recorded_with_their_bytes() -> None:
    x = torch.empty(2, 3, 4, 5, device="meta", requires_grad=True)
    factor = torch.empty(3, device="meta")
    with recorded() as launches:
        CORE(Params(), x, factor).sum().backward()
    assert [(item.kernel, item.launch.kernel, item.bytes) for item in launches] == [
        ("scale", "scale<float>", (120 + 3 + 120) * 4)
    ] * 2


def test_what_is_kept_is_made_once_and_appears_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPBENCH_CACHE", str(tmp_path))
    made = []

    def make(path: Path) -> None:
        made.append(path)
        path.write_text("content")

    first = cache.kept("kind", "key", ".txt", make)
    assert (first.read_text(), first.parent, cache.kept("kind", "key", ".txt", make)) == (
        "content",
        tmp_path / "kind",
        first,
    )
    assert len(made) == 1

    def fail(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        cache.kept("kind", "other", ".txt", fail)
    assert [file.name for file in (tmp_path / "kind").iterdir()] == [first.name]


def test_kernels_need_none_of_the_packages_that_a_gpu_machine_may_lack() -> None:
    script = """
import sys
from opbench.cuda import proof
from opbench import catching, check
from opbench.registry import Registry
for name in Registry.discover().names:
    Registry.discover().load(name)
print(*sorted({"pydantic", "fvcore", "pandas", "scipy", "cupy", "yaml", "rich"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
