"""Which kernels MKL runs on a processor of AMD."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lit_mbrl import mkl

PROGRAM = """
import ctypes
from pathlib import Path
{imports}
library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
error = (a := torch.randn(300, 200, dtype=torch.float64)) @ (b := torch.randn(200, 500).double())
error -= (a.float() @ b.float()).double()
print(library.mkl_serv_cpu_detect(), float(error.abs().max()) < 1e-4)
"""
FIRST, LAST = "import lit_mbrl, torch", "import torch, lit_mbrl"
KINDS = {"avx2": 5, "avx512": 7}
"""What `mkl_serv_cpu_detect` says of a processor that runs the kernels of Intel's processors."""

on_amd = pytest.mark.skipif(
    not (mkl._kernels() and torch.backends.mkl.is_available() and shutil.which("cc")),
    reason="MKL or a compiler is not there, or MKL takes what this processor has",
)


def kernels(imports: str, warning: str = "", **variables: str) -> tuple[int, bool]:
    """MKL's kernels in a process of its own, and whether a product of theirs is right."""
    program = [sys.executable, "-c", PROGRAM.format(imports=imports)]
    told = (mkl.OFF, "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS")
    environment = {key: value for key, value in os.environ.items() if key not in told}
    done = subprocess.run(
        program, capture_output=True, text=True, check=True, env=environment | variables
    )
    assert warning in done.stderr if warning else "lit_mbrl" not in done.stderr
    kind, right = done.stdout.split()
    return int(kind), right == "True"


@on_amd
def test_a_process_that_imports_lit_mbrl_first_has_those_of_intels_processors() -> None:
    assert kernels(FIRST) == (KINDS[mkl._kernels() or ""], True)


@on_amd
def test_they_are_left_alone_where_it_comes_too_late_or_is_told_so_or_cannot() -> None:
    """Of the first a warning tells."""
    before = kernels("import torch")
    assert before[0] != KINDS[mkl._kernels() or ""]
    assert kernels(LAST, "torch was imported before lit_mbrl") == before
    assert kernels(LAST, **{mkl.OFF: "1"}) == before
    assert kernels(FIRST, **{mkl.OFF: "1"}) == before
    assert kernels(FIRST, PATH="") == before


def test_a_machine_without_a_folder_for_it_runs_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*args: object, **kwargs: object) -> None:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.delenv(mkl.OFF, raising=False)
    monkeypatch.setattr(mkl, "_kernels", lambda: "avx2")
    monkeypatch.setattr(mkl, "TemporaryDirectory", none)
    monkeypatch.delitem(sys.modules, "torch")
    assert mkl.use_intel_kernels() is None


@pytest.mark.parametrize(
    ("cpuinfo", "held_back"),
    [
        (
            "vendor_id\t: AuthenticAMD\nflags\t: avx512f avx512cd avx512bw avx512dq avx512vl",
            "avx512",
        ),
        ("vendor_id\t: AuthenticAMD\nflags\t: fma avx2 avx512f", "avx2"),
        ("vendor_id\t: AuthenticAMD\nflags\t: sse2 avx", None),
        ("vendor_id\t: GenuineIntel\nflags\t: avx512f avx512cd avx512bw avx512dq avx512vl", None),
        ("Features\t: fp asimd", None),
    ],
)
def test_which_processors_it_is_for(
    cpuinfo: str, held_back: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(mkl, "CPUINFO", tmp_path / "cpuinfo")
    assert mkl._kernels() is held_back
