"""The kernels compile for GPUs without one; what the compiler makes of them is looked at."""

import re
from functools import cache
from importlib.util import find_spec
from shutil import which

import pytest

from qloracle_gpu.cupy.sources import MODULES, module_source

pytestmark = pytest.mark.slow

ARCHITECTURES = ("80", "89", "90")  # A100, a consumer architecture (RTX 4090), H100
MOST_REGISTERS = 64  # of 256 threads at once, so that four CTAs fit a multiprocessor
# One thread runs it; and one number of each group, by integers of 1408 bits.
WIDER = {"finish_mean": 128, "percentiles": 160, "interpolate": 160}

HAS_NVRTC = find_spec("cupy") is not None
needs_nvrtc = pytest.mark.skipif(not HAS_NVRTC, reason="NOT RUN: NVRTC needs CuPy, which is not installed here")
every_module = pytest.mark.parametrize("module", MODULES)


@cache
def compiled(module: str, architecture: str, *more: str) -> tuple[bytes, str]:
    from qloracle_gpu.cupy.compiling import FLAGS, compile_nvrtc

    return compile_nvrtc(module_source(module), module, (*FLAGS, f"--gpu-architecture={architecture}", *more))


def names_in(ptx: str) -> list[str]:
    return re.findall(r"^\s+(?:@!?%p\d+ )?([a-z][\w.]*)[ ;]", ptx, re.MULTILINE)


def instructions(module: str) -> list[str]:
    """The instructions of a module's PTX, without operands."""
    found = names_in(compiled(module, "compute_90")[0].decode())
    assert len(found) > 50, f"{module}: too little PTX was read"
    return found


# A step of Newton's method, and the sum of a product: both are written out in the kernels.
FUSED = {"int8": {"fma.rn.f64"}, "gemv": {"fma.rn.f32"}, "integer_gemv": {"fma.rn.f32", "fma.rn.f64"}}
UNWANTED = re.compile(r".*\.ftz.*|.*approx.*|div\.full.*|fma\..*|(?:add|sub|mul|div|sqrt)\.f(?:32|64)")


@needs_nvrtc
@every_module
def test_no_instruction_flushes_divides_approximately_or_fuses_unasked(module: str) -> None:
    # An addition or a product without a rounding in its name could still be fused by the assembler.
    wrong = {name for name in instructions(module) if UNWANTED.fullmatch(name)}
    assert wrong == FUSED.get(module, set()), f"{module}: {', '.join(sorted(wrong))}"


@needs_nvrtc
def test_the_look_at_instructions_sees_what_it_looks_for() -> None:
    from qloracle_gpu.cupy.compiling import compile_nvrtc

    source = 'extern "C" __global__ void k(float* x) { x[0] = x[1] / x[2] + x[3] * x[4]; }'
    ptx = compile_nvrtc(source, "k", ("--gpu-architecture=compute_90", "--use_fast_math"))[0].decode()
    assert {"div.approx.ftz.f32", "fma.rn.ftz.f32"} <= set(filter(UNWANTED.fullmatch, names_in(ptx)))


@needs_nvrtc
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@every_module
def test_kernels_fit_the_registers_and_spill_nothing(module: str, architecture: str) -> None:
    cubin, log = compiled(module, f"sm_{architecture}", "--ptxas-options=-v")
    assert cubin.startswith(b"\x7fELF")
    used = dict(re.findall(r"Compiling entry function '(\w+)'.*?Used (\d+) registers", log, re.DOTALL))
    assert used, f"{module}: the log of the compiler names no kernel:\n{log}"
    greedy = {name: count for name, count in used.items() if int(count) > WIDER.get(name, MOST_REGISTERS)}
    assert not greedy, f"{module} on sm_{architecture}: registers {greedy}"
    spilled = re.findall(r"(\d+) bytes spill", log)
    assert spilled, "the log of the compiler counts no spills"
    assert set(spilled) == {"0"}, f"{module} on sm_{architecture}: bytes spilled: {spilled}"


WIDTHS = {  # bytes of the widest load and store that a module needs
    "blocks": (16, 4), "quantize": (16, 8), "dequantize": (8, 16), "convert": (16, 16), "packing": (8, 8),
    "gemv": (8, 4), "int8": (16, 16), "affine": (16, 16), "adapters": (16, 16), "gradients": (16, 16),
    "observe": (16, 4), "integer_gemv": (16, 4),
}  # fmt: skip


@needs_nvrtc
@pytest.mark.parametrize("module", WIDTHS)
def test_accesses_are_as_wide_as_a_thread_s_items_where_the_address_allows(module: str) -> None:
    names = instructions(module)
    for kind, needed in zip(("ld", "st"), WIDTHS[module], strict=True):
        found = [
            int(vector or 1) * int(bits) // 8
            for name in names
            for vector, bits in re.findall(rf"^{kind}\.global(?:\.nc)?(?:\.v(\d))?\.[a-z](\d+)$", name)
        ]
        assert max(found) >= needed, f"{module}: the widest {kind}.global has {max(found)} bytes, {needed} are possible"


@pytest.mark.skipif(which("nvcc") is None, reason="NOT RUN: nvcc is not on the PATH")
def test_nvcc_compiles_the_kernels_too() -> None:
    from qloracle_gpu.cupy.compiling import compile_nvcc

    assert compile_nvcc("nvcc", module_source("packing"), "packing", "sm_90").startswith(b"\x7fELF")


def test_a_cubin_is_compiled_once_and_kept_by_source_flags_and_version(monkeypatch, tmp_path) -> None:
    from qloracle_gpu.cupy import compiling

    made: list[str] = []

    def compile_it(source: str, module: str, architecture: str) -> bytes:
        made.append(f"{module} {architecture}")
        return b"\x7fELF" + str(len(made)).encode()

    monkeypatch.setenv(compiling.CACHE_VARIABLE, str(tmp_path / "kernels"))
    for version in ("nvrtc13.0", "nvrtc13.0", "nvrtc13.1"):
        monkeypatch.setattr(
            compiling, "found_compiler", lambda version=version: compiling.Compiler(version, compile_it)
        )
        compiling.cubin_of("packing", "sm_90")
    assert made == ["packing sm_90"] * 2, "once for each version of the compiler"
    compiling.cubin_of("packing", "sm_80")
    monkeypatch.setattr(compiling, "FLAGS", (*compiling.FLAGS, "--extra"))
    compiling.cubin_of("packing", "sm_80")
    assert made[2:] == ["packing sm_80"] * 2, "once for each architecture and set of flags"
    for path in (tmp_path / "kernels").iterdir():
        path.write_bytes(path.read_bytes()[:3])
    compiling.cubin_of("packing", "sm_80")
    assert len(made) == 5, "a file that was cut off is made anew"


def test_without_a_compiler_a_kept_cubin_serves_and_else_the_message_says_what_helps(monkeypatch, tmp_path) -> None:
    from qloracle_gpu.cupy import NoDeviceError, compiling

    monkeypatch.setenv(compiling.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(compiling, "found_compiler", lambda: None)
    with pytest.raises(NoDeviceError, match=r"neither NVRTC .* nor nvcc on the PATH"):
        compiling.cubin_of("packing", "sm_90")
    kept = compiling.Compiler("nvrtc13.0", lambda *_: b"\x7fELF kept")
    monkeypatch.setattr(compiling, "found_compiler", lambda: kept)
    compiling.cubin_of("packing", "sm_90")
    monkeypatch.setattr(compiling, "found_compiler", lambda: None)
    assert compiling.cubin_of("packing", "sm_90") == b"\x7fELF kept"


@needs_nvrtc
def test_a_source_that_does_not_compile_names_the_module_and_the_line() -> None:
    from qloracle_gpu.cupy import KernelCompileError
    from qloracle_gpu.cupy.compiling import compile_nvrtc

    with pytest.raises(KernelCompileError, match=r"(?s)packing.cu does not compile with .*broken.cuh\(7\)"):
        compile_nvrtc('#line 7 "broken.cuh"\nint int;\n', "packing", ("--gpu-architecture=sm_90",))
