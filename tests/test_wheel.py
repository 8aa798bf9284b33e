"""The wheel: what is in it, and that it runs where the repository is not."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import TINY, TINY_MODEL, options

ROOT = Path(__file__).parents[1]
SOURCES = ["README.md", "callbacks", "conf", "lit_mbrl", "mlflow", "pyproject.toml", "tests"]


def execute(*command: str | Path, folder: Path) -> str:
    """Standard output of a command that has to succeed, with nothing of this environment's."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "MLFLOW_TRACKING_URI"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources: setuptools would reuse what it left beside them."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name)
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    built = tmp_path_factory.mktemp("wheel")
    execute(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", built, folder=source)
    (made,) = built.iterdir()
    return made


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
    modules = {str(path.relative_to(ROOT)) for path in ROOT.glob("lit_mbrl/**/*.py")}
    callbacks = {f"lit_mbrl/callbacks/{path.name}" for path in ROOT.glob("callbacks/*.py")}
    assert "lit_mbrl/callbacks/evaluation.py" in callbacks
    assert files == modules | callbacks | {"lit_mbrl/report/page.html"}


@pytest.fixture(scope="module")
def python(wheel: Path) -> Iterator[Path]:
    """The interpreter of a new environment with the wheel and its dependencies from the index."""
    # Two gigabytes, which pytest's own temporary folders would keep for three sessions.
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder, "environment")
        execute(sys.executable, "-m", "venv", environment, folder=Path(folder))
        interpreter = environment / "bin" / "python"
        # Compiling all modules of all dependencies takes as long as the rest of the installation.
        install = [interpreter, "-m", "pip", "install", "--quiet", "--no-compile", wheel]
        execute(*install, folder=Path(folder))
        yield interpreter


def test_a_run_starts_from_an_empty_folder(python: Path, tmp_path: Path) -> None:
    shutil.copy(ROOT / "conf" / "mppve.yaml", tmp_path)
    # -P keeps the working directory off the path, as an installed command would.
    where = execute(
        python, "-P", "-c", "import lit_mbrl; print(lit_mbrl.__file__)", folder=tmp_path
    )
    assert Path(where.strip()).is_relative_to(python.parents[1])
    arguments = ["--config", "mppve.yaml", *options({**TINY, **TINY_MODEL})]
    output = execute(python, "-P", "-m", "lit_mbrl.fit", *arguments, folder=tmp_path)
    line = output.splitlines()[-1]
    assert re.fullmatch(
        r"MPPVE on InvertedPendulum-v5: final return \d+\.\d ± \d+\.\d at environment step 40\. "
        r"Look at run \w+ with: mlflow ui --backend-store-uri sqlite:////.*/mlflow\.db",
        line,
    ), output
    assert (tmp_path / "mlflow.db").exists()
    assert len(list(tmp_path.glob("checkpoints/*/last.ckpt"))) == 1
