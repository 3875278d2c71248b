"""Compiles kernels with NVRTC, through CuPy; needs no GPU."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opbench.cuda import cache
from opbench.cuda.source import Source
from opbench.errors import OpbenchError, Unsupported

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
"""What every kernel must compile for."""

OPTIONS: tuple[str, ...] = ("--std=c++17", "--generate-line-info", "--ptxas-options=-v")


class CompileError(OpbenchError):
    """The compiler refuses a kernel; the message's first line gives file and line, the others all that was said."""

    @classmethod
    def of(cls, path: Path, target: str, log: str) -> CompileError:
        """Make the error of a compiler's log."""
        lines = log.splitlines()
        first = next((line for line in lines if "error" in line), lines[0] if lines else "")
        return cls("\n".join([f"{path} does not compile for {target}: {first.strip()}", *lines]))


@dataclass(frozen=True, kw_only=True)
class Cubin:
    """Kernels compiled for one architecture."""

    image: bytes
    names: dict[str, str]
    """Mangled name of each kernel asked for."""
    log: str
    """What the compiler said, the assembler's account of registers and spills included."""


def compile_kernels(source: Source, kernels: tuple[str, ...], architecture: str) -> Cubin:
    """Compile kernels of one file, named with their template arguments, for 'sm_90' or its like.

    Raises:
        CompileError: the source does not compile.
        Unsupported: there is no NVRTC.
    """
    nvrtc = _nvrtc()
    version = ".".join(map(str, nvrtc.getVersion()))
    key = "\0".join([source.digest, str(source.path), *kernels, architecture, version, *OPTIONS])

    def make(path: Path) -> None:
        found = _compile(nvrtc, source, kernels, architecture)
        head = json.dumps({"names": found.names, "log": found.log}).encode()
        path.write_bytes(len(head).to_bytes(8, "little") + head + found.image)

    data = cache.kept("cubins", key, ".cubin", make).read_bytes()
    length = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + length])
    return Cubin(image=data[8 + length :], names=head["names"], log=head["log"])


def target(major: int, minor: int) -> str:
    """Architecture to compile for so that a device of this compute capability runs it.

    Raises:
        Unsupported: this NVRTC knows no architecture of the device's generation.
    """
    # Machine code runs on later devices of its own generation, so a device newer than the compiler is no trouble.
    known = [arch for arch in _nvrtc().getSupportedArchs() if arch // 10 == major and arch % 10 <= minor]
    if not known:
        raise Unsupported(f"the installed NVRTC cannot compile for compute capability {major}.{minor}; update it")
    return f"sm_{max(known)}"


def _compile(nvrtc: Any, source: Source, kernels: tuple[str, ...], architecture: str) -> Cubin:
    texts = [text.encode() for text in source.headers.values()]
    names = [name.encode() for name in source.headers]
    program = nvrtc.createProgram(source.text, str(source.path), texts, names)
    try:
        for kernel in kernels:
            nvrtc.addNameExpression(program, kernel)
        try:
            nvrtc.compileProgram(program, (*OPTIONS, f"--gpu-architecture={architecture}"))
        except nvrtc.NVRTCError as error:
            log = nvrtc.getProgramLog(program).strip() or str(error)
            raise CompileError.of(source.path, architecture, log) from None
        return Cubin(
            # CuPy takes the last byte, a zero, for a string's end; the driver does not miss it, a disassembler does.
            image=nvrtc.getCUBIN(program) + b"\0",
            names={kernel: _text(nvrtc.getLoweredName(program, kernel)) for kernel in kernels},
            log=_text(nvrtc.getProgramLog(program)),
        )
    finally:
        nvrtc.destroyProgram(program)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _nvrtc() -> Any:
    """CuPy's binding; the compiler itself is looked for when it is first called."""
    try:
        from cupy.cuda import nvrtc

        nvrtc.getVersion()
    except ImportError:
        raise Unsupported("compiling kernels needs CuPy; install opbench[cuda13], or opbench[cuda12]") from None
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise Unsupported(f"no NVRTC was found ({reason}); install opbench[cuda13], or opbench[cuda12]") from None
    return nvrtc
