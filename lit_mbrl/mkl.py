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
NEEDED = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}
"""What MKL's AVX-512 kernels ask of a processor."""


def use_avx512() -> bool:
    """Let MKL run its AVX-512 kernels on a processor of AMD that has the instructions.

    MKL takes them on Intel's processors alone. On others it keeps to AVX2, half as many operations
    a cycle: 227 instead of 515 GFLOP/s in float32 on two cores of Zen 5 (docs/performance.md). It
    asks a function of its own, `mkl_serv_intel_cpu_true`, whether the processor is Intel's, and
    then the processor itself what it can do. A library of that one function, loaded before torch,
    answers yes in its place. MKL documents no option for this: `MKL_ENABLE_INSTRUCTIONS` and
    `MKL_CBWR` are without effect there.

    The kernels differ in rounding, so that a run is repeated bit by bit with the same choice only.
    `LIT_MBRL_MKL_AS_IT_IS=1` leaves MKL as it is.

    Returns:
        Whether the answer was put in place. Not so, and without harm, where there is nothing to
        gain, no compiler of C, or where torch is loaded already, of which a warning tells.
    """
    if OFF in os.environ or not _held_back():
        return False
    if "torch" in sys.modules:
        warnings.warn(
            "torch was imported before lit_mbrl: on this processor its products take twice the "
            f"time that they need, see lit_mbrl.mkl ({OFF}=1 says that this is wanted)",
            stacklevel=3,
        )
        return False
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return False
    with TemporaryDirectory() as folder:
        source, library = Path(folder, "answer.c"), Path(folder, "answer.so")
        source.write_text(ANSWER)
        try:
            command = [compiler, "-shared", "-fPIC", "-o", str(library), str(source)]
            subprocess.run(command, check=True, capture_output=True, timeout=60)
            ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)  # stays mapped when the file is gone
        except (OSError, subprocess.SubprocessError):
            return False
    return True


def _held_back() -> bool:
    """Whether this is a processor of AMD with AVX-512, as Linux describes it."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return False
    facts = {key.strip(): value.split() for key, _, value in (x.partition(":") for x in lines)}
    return facts.get("vendor_id") == ["AuthenticAMD"] and set(facts.get("flags", ())) >= NEEDED
