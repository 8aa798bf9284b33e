"""Which kernels Intel's MKL, torch's library of matrix products, runs on a processor of AMD."""

import ctypes
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

OFF = "LIT_MBRL_MKL_AS_IT_IS"
"""Environment variable that, when set to anything, leaves MKL's choice to MKL."""

CPUINFO = Path("/proc/cpuinfo")
ANSWER = "int mkl_serv_intel_cpu_true(void) { return 1; }"
AVX2, AVX512 = {"avx2", "fma"}, {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}
"""What MKL's kernels of either kind ask of a processor."""


def use_intel_kernels() -> str | None:
    """Let MKL run the kernels that Intel's processors get on a processor of AMD.

    MKL takes its kernels for AVX-512 on Intel's processors alone, and has some of its own for AVX2
    on others, which on Zen 5 do half as many operations a cycle and on Zen 3 are slower than those
    that Intel's get, most of all for tall batched products (docs/performance.md has the numbers).
    It asks a function of its own, `mkl_serv_intel_cpu_true`, whether the processor is Intel's, and
    then the processor itself what it can do. A library of that one function, loaded before torch,
    answers yes in its place. MKL documents no option for this: `MKL_ENABLE_INSTRUCTIONS` and
    `MKL_CBWR` are without effect there. (With the answer in place they are heeded.)

    The kernels differ in rounding, so that a run is repeated bit by bit with the same choice only.
    `LIT_MBRL_MKL_AS_IT_IS=1` leaves MKL as it is.

    Returns:
        The kernels' kind, `avx512` or `avx2`, where the answer was put in place. None, and without
        harm, where the processor is not AMD's or lacks them, where there is no compiler of C or no
        folder for what it makes, or where torch is loaded already, of which a warning tells.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    kernels = _kernels()
    if OFF in os.environ or compiler is None or kernels is None:
        return None
    if "torch" in sys.modules:
        warnings.warn(
            "torch was imported before lit_mbrl: on this processor its products take longer than "
            f"they need to, see lit_mbrl.mkl ({OFF}=1 says that this is wanted)",
            stacklevel=3,
        )
        return None
    try:
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            source, library = Path(folder, "answer.c"), Path(folder, "answer.so")
            source.write_text(ANSWER)
            command = [compiler, "-shared", "-fPIC", "-o", str(library), str(source)]
            subprocess.run(command, check=True, capture_output=True, timeout=60)
            ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)  # stays mapped when the file is gone
    except (OSError, subprocess.SubprocessError):
        return None
    return kernels


def _kernels() -> str | None:
    """The best kernels of Intel's that this processor of AMD can run, as Linux describes it."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return None
    facts = {key.strip(): value.split() for key, _, value in (x.partition(":") for x in lines)}
    if facts.get("vendor_id") != ["AuthenticAMD"]:
        return None
    flags = set(facts.get("flags", ()))
    return "avx512" if flags >= AVX512 else "avx2" if flags >= AVX2 else None
