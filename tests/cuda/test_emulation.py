"""The CPU run of a kernel: what it computes, and which mistakes it finds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from opbench.cuda import Launch, Source, on_cpu
from opbench.cuda.emulation import KernelError, Order, run
from opbench.cuda.nvrtc import CompileError

HEAD = '#include "device.cuh"\nstruct P { const void* x; void* y; int n; };\n'
ORDERS: tuple[Order, ...] = ("forward", "reverse", "random")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "kernel.cu"


def launch(
    path: Path, body: str, threads: int = 64, blocks: int = 1, shared_bytes: int = 0, scalars: tuple[int, ...] = (0,)
) -> Launch:
    path.write_text(f"{HEAD}__global__ void f(const P p) {{\n{body}\n}}\n")
    return Source(path).launch("f", grid=(blocks,), block=(threads,), shared_bytes=shared_bytes, scalars=scalars)


def result(
    what: Launch, x: Tensor, order: Order = "forward", outputs: int | None = None, sanitize: bool = False
) -> Tensor:
    y = torch.full((outputs or x.numel(),), float("nan"))
    with on_cpu(order, sanitize=sanitize):
        run(what, (x, y))
    return y


REVERSAL = """
  SHARED_MEMORY(float, s);
  s[threadIdx.x] = static_cast<const float*>(p.x)[threadIdx.x];
  __syncthreads();
  static_cast<float*>(p.y)[threadIdx.x] = s[63 - threadIdx.x];
"""


@pytest.mark.parametrize("sanitize", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_threads_exchange_through_shared_memory(source: Path, order: Order, sanitize: bool) -> None:
    x = torch.arange(64.0)
    assert torch.equal(result(launch(source, REVERSAL, shared_bytes=256), x, order, sanitize=sanitize), x.flip(0))


def test_a_missing_barrier_reads_nan_and_differs_between_orders(source: Path) -> None:
    what = launch(source, REVERSAL.replace("__syncthreads();", ""), shared_bytes=256)
    x = torch.arange(64.0)
    first, second = result(what, x, "forward"), result(what, x, "reverse")
    assert first.isnan().any()
    assert not torch.equal(first.nan_to_num(-1), second.nan_to_num(-1))


def test_warp_primitives_do_not_order_one_warp_after_another(source: Path) -> None:
    body = """
  SHARED_MEMORY(float, s);
  s[threadIdx.x] = 1;
  __syncwarp();
  float there = s[63 - threadIdx.x];
  there = __shfl_sync(0xffffffffu, there, threadIdx.x % 32);
  static_cast<float*>(p.y)[threadIdx.x] = there;
"""
    what = launch(source, body, shared_bytes=256)
    for order in ("forward", "reverse"):
        assert result(what, torch.zeros(64), order).isnan().any()


def test_a_barrier_that_half_the_threads_skip_is_a_deadlock_or_wrong(source: Path) -> None:
    what = launch(
        source,
        """
  SHARED_MEMORY(float, s);
  if (threadIdx.x < 32) { __syncthreads(); __syncthreads(); } else __syncwarp();
  s[threadIdx.x] = 1;
  __syncwarp();
  if (threadIdx.x >= 32) __syncthreads();
  static_cast<float*>(p.y)[threadIdx.x] = s[63 - threadIdx.x];
""",
        shared_bytes=256,
    )
    try:
        assert result(what, torch.zeros(64)).isnan().any()
    except KernelError as error:
        assert "barrier" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("if (threadIdx.x == 3) return; __shfl_xor_sync(0xffffffffu, 1.0f, 1);", "waits for a lane that has returned"),
        ("if (threadIdx.x < 16) __shfl_xor_sync(0xffffu, 1.0f, 1);", "whole warp"),
        ("load_vector<float, 4>(static_cast<const float*>(p.x) + 1);", "not aligned"),
        ("SHARED_MEMORY(float, s); copy_async<16>(s, p.x); ", "asynchronous copies"),
        ("SHARED_MEMORY(char, s); unsigned r[1]; load_matrices<1>(r, shared_address(s + 8));", "not aligned"),
    ],
)
def test_a_broken_rule_is_named_with_block_and_thread(source: Path, body: str, message: str) -> None:
    with pytest.raises(KernelError, match=rf"{message}.*\(block 0,0,0 thread \d+,0,0\)"):
        result(launch(source, body, threads=32, shared_bytes=1024), torch.zeros(64))


def test_a_deadlock_ends(source: Path) -> None:
    body = "if (threadIdx.x == 0) __syncwarp(); else __syncthreads();"
    with pytest.raises(KernelError, match="deadlock"):
        result(launch(source, body), torch.zeros(64))


@pytest.mark.parametrize("beyond", [64, -1])
@pytest.mark.parametrize("what", ["read", "write", "shared"])
def test_access_beyond_memory_is_found_by_the_sanitizer(source: Path, what: str, beyond: int) -> None:
    index = f"(threadIdx.x == 5 ? {beyond} : threadIdx.x)"
    body = {
        "read": f"static_cast<float*>(p.y)[threadIdx.x] = static_cast<const float*>(p.x)[{index}];",
        "write": f"static_cast<float*>(p.y)[{index}] = 1;",
        "shared": f"SHARED_MEMORY(float, s); s[{index}] = 1; static_cast<float*>(p.y)[threadIdx.x] = s[threadIdx.x];",
    }[what]
    with pytest.raises(KernelError, match=r"buffer-overflow|use-after-poison|SEGV|unknown-crash"):
        result(launch(source, body, shared_bytes=256), torch.zeros(64), sanitize=True)


def test_a_finding_names_the_line_of_the_kernel(source: Path) -> None:
    body = "\n\nstatic_cast<float*>(p.y)[64 + threadIdx.x] = 1;"
    with pytest.raises(KernelError, match=r"WRITE of size 4.*kernel\.cu:6"):
        result(launch(source, body), torch.zeros(64), sanitize=True)


def test_a_struct_of_another_size_is_refused(source: Path) -> None:
    with pytest.raises(KernelError, match="its struct has 24 bytes and the launch gives 32"):
        result(launch(source, ";", scalars=(1, 2, 3)), torch.zeros(64))


def test_a_source_that_does_not_compile_is_told_with_file_and_line(source: Path) -> None:
    with pytest.raises(CompileError, match=r"kernel\.cu:4:\d+: error"):
        result(launch(source, "int i = nonsense;"), torch.zeros(64))


@pytest.mark.parametrize("sanitize", [False, True])
def test_a_kernel_is_compiled_once_wherever_its_file_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sanitize: bool
) -> None:
    monkeypatch.setenv("OPBENCH_CACHE", str(tmp_path / "cache"))
    built = []
    for name in ("first", "second", "other"):
        file = tmp_path / name / "kernel.cu"
        file.parent.mkdir()
        body = REVERSAL.replace("63", "62 + 1") if name == "other" else REVERSAL
        x = torch.arange(64.0)
        assert torch.equal(result(launch(file, body, shared_bytes=256), x, sanitize=sanitize), x.flip(0))
        built.append(len(list((tmp_path / "cache" / "on_cpu").iterdir())))
    assert built == [2, 2, 3]  # The first is linked with what schedules its threads.


def test_copies_arrive_with_the_wait_and_not_before(source: Path) -> None:
    body = """
  SHARED_MEMORY(float, s);
  const float* x = static_cast<const float*>(p.x) + 4 * threadIdx.x;
  float* mine = s + 4 * threadIdx.x;
  copy_async<16>(mine, x);
  commit_copies();
  copy_async<16>(mine + 128, x, threadIdx.x % 2 == 0);
  commit_copies();
  float* y = static_cast<float*>(p.y);
  y[threadIdx.x] = mine[0];
  wait_for_copies<1>();
  y[32 + threadIdx.x] = mine[1];
  y[64 + threadIdx.x] = mine[129];
  wait_for_copies<0>();
  y[96 + threadIdx.x] = mine[130];
"""
    x = torch.arange(128.0)
    y = result(launch(source, body, threads=32, shared_bytes=1024), x, outputs=128)
    assert y[:32].isnan().all()
    assert torch.equal(y[32:64], x[1::4])
    assert y[64:96].isnan().all()
    assert torch.equal(y[96:], torch.where(torch.arange(32) % 2 == 0, x[2::4], 0.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("depth", [8, 16])
def test_matrix_loads_and_products_are_a_matrix_product(source: Path, dtype: torch.dtype, depth: int) -> None:
    """[16 x depth] times [depth x 8], A from its rows, B from its rows transposed on the way."""
    name = {torch.float16: "float16", torch.bfloat16: "bfloat16"}[dtype]
    source.write_text(f"""{HEAD}
__global__ void f(const P p) {{
  SHARED_MEMORY({name}, a);
  {name}* b = a + 16 * {depth};
  for (int i = threadIdx.x; i < 24 * {depth}; i += 32) a[i] = static_cast<const {name}*>(p.x)[i];
  __syncwarp();
  const int lane = threadIdx.x;
  unsigned of_a[{depth // 4}], of_b[{depth // 8}];
  load_matrices(of_a, shared_address(a + lane % 16 * {depth} + lane / 16 * 8 % {depth}));
  load_matrices_transposed(of_b, shared_address(b + lane % {depth} * 8));
  float d[4] = {{0, 0, 0, 0}};
  multiply_tiles<{name}>(d, of_a, of_b);
  for (int e = 0; e < 4; ++e)
    static_cast<float*>(p.y)[(lane / 4 + 8 * (e / 2)) * 8 + 2 * (lane % 4) + e % 2] = d[e];
}}
""")
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(16, depth, generator=generator).to(dtype)
    b = torch.randn(depth, 8, generator=generator).to(dtype)
    x = torch.cat([a.flatten(), b.flatten()])
    what = Source(source).launch("f", grid=(1,), block=(32,), shared_bytes=48 * depth, scalars=(0,))
    for order in ORDERS:
        y = result(what, x, order, outputs=128).view(16, 8)
        torch.testing.assert_close(y.double(), a.double() @ b.double(), rtol=1e-5, atol=1e-5)


def test_every_16_bit_value_converts_as_torch_does(source: Path) -> None:
    for dtype, name in ((torch.float16, "float16"), (torch.bfloat16, "bfloat16")):
        x = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)
        source.write_text(f"""{HEAD}
__global__ void f(const P p) {{
  const int i = blockIdx.x * 256 + threadIdx.x;
  static_cast<float*>(p.y)[i] = to_float(static_cast<const {name}*>(p.x)[i]);
}}
""")
        what = Source(source).launch("f", grid=(256,), block=(256,), scalars=(0,))
        torch.testing.assert_close(result(what, x), x.float(), rtol=0, atol=0, equal_nan=True)
        source.unlink()


@pytest.mark.parametrize(("dtype", "name"), [(torch.float16, "float16"), (torch.bfloat16, "bfloat16")])
def test_floats_round_as_torch_rounds_them(source: Path, dtype: torch.dtype, name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (1 << 14,), generator=generator).to(torch.int32)
    special = torch.tensor(
        [0.0, -0.0, 65504.0, 65519.9, 65520.0, 5.96e-8, 2.98e-8, 2.99e-8, float("inf"), -float("inf")]
    )
    ties = torch.arange(1024).to(torch.float32) / 2048 + 1
    x = torch.cat([bits.view(torch.float32).nan_to_num(1.0), special, ties])
    source.write_text(f"""{HEAD}
__global__ void f(const P p) {{
  const int i = blockIdx.x * 256 + threadIdx.x;
  if (i < p.n) static_cast<{name}*>(p.y)[i] = from_float<{name}>(static_cast<const float*>(p.x)[i]);
}}
""")
    what = Source(source).launch("f", grid=(-(-len(x) // 256),), block=(256,), scalars=(len(x),))
    y = torch.empty(len(x), dtype=dtype)
    with on_cpu():
        run(what, (x, y))
    assert torch.equal(y.view(torch.int16), x.to(dtype).view(torch.int16))


def test_votes_and_shuffles(source: Path) -> None:
    body = """
  float* y = static_cast<float*>(p.y);
  const int lane = threadIdx.x;
  y[lane] = warp_sum(static_cast<const float*>(p.x)[lane]);
  y[32 + lane] = __popc(__ballot_sync(0xffffffffu, lane % 3 == 0));
  y[64 + lane] = __shfl_down_sync(0xffffffffu, static_cast<float>(lane), 4);
  y[96 + lane] = warp_max(static_cast<const float*>(p.x)[lane]);
"""
    x = torch.arange(32.0)
    y = result(launch(source, body, threads=32), x, "random", outputs=128).view(4, 32)
    assert torch.equal(y[0], torch.full((32,), 496.0))
    assert torch.equal(y[1], torch.full((32,), 11.0))
    assert torch.equal(y[2], torch.cat([x[4:], x[28:]]))
    assert torch.equal(y[3], torch.full((32,), 31.0))


ONE_FLOAT = """
    abs acos acosh asin asinh atan atanh cbrt ceil cos cosh erf erfc exp exp2 expm1 fabs floor lgamma log log10 log1p
    log2 nearbyint rint round sin sinh sqrt tan tanh tgamma trunc
"""
TWO_FLOATS = "atan2 copysign fdim fmax fmin fmod hypot pow remainder"


def test_functions_of_floats_give_floats_as_in_cuda(source: Path) -> None:
    """The value too: that of the function named with an f."""
    calls = [(f"{name}(x)", f"{'fabs' if name == 'abs' else name}f(x)") for name in ONE_FLOAT.split()]
    calls += [(f"{name}(x, 2.5f)", f"{name}f(x, 2.5f)") for name in TWO_FLOATS.split()]
    calls += [("fma(x, x, 1.0f)", "fmaf(x, x, 1.0f)"), ("ldexp(x, 3)", "8 * x")]
    body = "const float x = static_cast<const float*>(p.x)[threadIdx.x];\nint wrong = 0;\n" + "".join(
        f'static_assert(sizeof({call}) == 4, "{call}");\nwrong += !isnan({same}) && {call} != {same};\n'
        for call, same in calls
    )
    whole = "wrong += abs(-7) != 7 || abs(-7ll << 33) != 7ll << 33 || abs(-0.5) != 0.5 || sizeof(exp(1.0)) != 8;\n"
    what = launch(source, body + whole + "static_cast<float*>(p.y)[threadIdx.x] = wrong;", threads=4)
    assert torch.equal(result(what, torch.tensor([0.3, 0.75, 1.5, -2.5])), torch.zeros(4))


def test_a_header_of_cpp_is_refused_as_by_nvrtc(source: Path) -> None:
    with pytest.raises(CompileError, match="vector"):
        result(launch(source, "}\n#include <vector>\n__device__ void g() {"), torch.zeros(1))
