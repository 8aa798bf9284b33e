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

    MKL takes them on Intel's processors alone. On others it keeps to AVX2, on Zen 5 half as many
    operations a cycle: 234 instead of 521 GFLOP/s in float32 on two cores (docs/performance.md; a
    Zen 4, whose cores do an operation of AVX-512 in two halves, has less to gain). It asks a
    function of its own, `mkl_serv_intel_cpu_true`, whether the processor is Intel's, and then the
    processor itself what it can do. A library of that one function, loaded before torch, answers
    yes in its place. MKL documents no option for this: `MKL_ENABLE_INSTRUCTIONS` and
    `MKL_CBWR` are without effect there. (With the answer in place they are heeded.)

    The kernels differ in rounding, so that a run is repeated bit by bit with the same choice only.
    `LIT_MBRL_MKL_AS_IT_IS=1` leaves MKL as it is.

    Returns:
        Whether the answer was put in place. Not so, and without harm, where there is nothing to
        gain, no compiler of C or no folder for what it makes, or where torch is loaded already, of
        which a warning tells.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if OFF in os.environ or compiler is None or not _held_back():
        return False
    if "torch" in sys.modules:
        warnings.warn(
            "torch was imported before lit_mbrl: on this processor its products take up to twice "
            f"the time that they need, see lit_mbrl.mkl ({OFF}=1 says that this is wanted)",
            stacklevel=3,
        )
        return False
    try:
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            source, library = Path(folder, "answer.c"), Path(folder, "answer.so")
            source.write_text(ANSWER)
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
