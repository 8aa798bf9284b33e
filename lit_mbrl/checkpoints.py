"""Checkpoint files: written whole or not at all, checked before they are trusted."""

import fcntl
import os
import pickle
import random
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from lit_mbrl.errors import ConfigurationError

RUN = "lit_mbrl"
"""Key of a checkpoint under which is what Lightning does not know of: whose it is, replay, ..."""

_claims: dict[Path, int] = {}  # descriptors of files that are locked as long as they are open


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside, flushes, renames, and keeps the file before as `<name>.previous.ckpt`.

    A process that dies at any moment leaves a whole checkpoint under the name. Reading unpickles
    nothing but tensors and plain values.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Lightning's hook.

        Raises:
            OSError: If it cannot be written; what was there stays, whole.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        try:
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except BaseException as error:
            part.unlink(missing_ok=True)
            if isinstance(error.__context__, OSError):  # torch's writer fails once more on closing
                raise error.__context__ from None
            raise
        if path.exists():
            link = path.with_suffix(".link")
            link.unlink(missing_ok=True)
            try:
                os.link(path, link)  # so that the name is never without its file
            except OSError:  # a file system without links
                link = path
            os.replace(link, previous(path))
        os.replace(part, path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Lightning's hook; `weights_only` is always true."""
        return read(Path(path), mapped=False)  # optimizers keep the tensors they are given


def previous(path: Path) -> Path:
    """Where the checkpoint before the one at `path` is kept."""
    return path.with_suffix(".previous.ckpt")


def read(path: Path, mapped: bool = True) -> dict[str, Any]:
    """A checkpoint on the CPU; `mapped` leaves its tensors in the file until they are looked at."""
    loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    return loaded


def is_sound(path: Path) -> bool:
    """Whether the file is whole: it is a zip archive, and each member has its own checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return False


def sound(path: Path, known: bool) -> Path | None:
    """The checkpoint at `path`, or the one before it if that is damaged, or none.

    A damaged one is moved out of the way, so that it does not become the one before the next.

    Args:
        path: Of the newer one.
        known: Whether it is a run's for certain; if not, and there is none before it, it may be any
            file, and stays where it is.
    """
    if is_sound(path):
        return path
    before = previous(path)
    usable = is_sound(before)
    for candidate in (path, before)[: 1 if usable else 2]:
        if candidate.is_file():
            print(f"checkpoint {candidate} is damaged and is not used", flush=True)
            if usable or known:
                os.replace(candidate, candidate.with_suffix(".damaged"))
    return before if usable else None


def saved_run(path: Path) -> dict[str, Any] | None:
    """What `EnvStepCheckpoint` has put into a checkpoint; None if it is another file."""
    try:
        found: dict[str, Any] | None = read(path).get(RUN)
    except (OSError, RuntimeError, AttributeError, EOFError, pickle.UnpicklingError):
        return None
    return found


def find(given: str, folder: Path, identity: dict[str, Any]) -> Path | None:
    """The checkpoint to go on from.

    Args:
        given: A path, or `last`: the newest one under `folder` of a run with this identity.
        folder: Where runs write theirs.
        identity: What the run to be continued must have been, see `EnvStepCheckpoint.identity`.

    Returns:
        The path; None if `last` was given and there is none, so that one command line can both
        begin a run and continue it.

    Raises:
        ConfigurationError: If there is no whole checkpoint at the path, or not of this algorithm,
            task and seed.
    """
    if given == "last":
        names = {path.with_name("last.ckpt") for path in folder.rglob("last*.ckpt")}
        nearest = None
        for name in sorted(names, key=_time, reverse=True):
            # Another run's is left alone; a damaged one may be this run's.
            run = saved_run(name) or saved_run(previous(name))
            if run is None or _named(run["identity"]) != _named(identity):
                continue
            others = other_settings(run["identity"], identity)
            if not others and (path := sound(name, known=True)):
                return path
            if others and nearest is None:
                nearest = f"; {name} has another {' and '.join(others)}"
        line = f"no checkpoint of such a run under {folder}: it begins anew"
        print(line + (nearest or ""), flush=True)
        return None
    path = sound(Path(given), known=False)
    if path is None:
        raise ConfigurationError(
            f"ckpt_path: {given!r} was given; allowed: 'last', or a checkpoint that is whole, "
            "such as checkpoints/<run id>/last.ckpt"
        )
    found = saved_run(path)
    if found is None:
        raise ConfigurationError(
            f"ckpt_path: {given!r} was given; allowed: a checkpoint with replay buffers, "
            "such as last.ckpt (best.ckpt holds the weights alone)"
        )
    if _named(found["identity"]) != _named(identity):
        raise ConfigurationError(
            f"ckpt_path: {given!r} was given, of {_named(found['identity'])}; "
            f"allowed: a checkpoint of {_named(identity)}"
        )
    return path


def other_settings(saved: dict[str, Any], identity: dict[str, Any]) -> list[str]:
    """Names of the settings in which a checkpoint's run is another than the one that is asked for.

    An option that the library did not have yet is as it is without it: at its default.

    Args:
        saved: What the checkpoint has of `EnvStepCheckpoint.identity`.
        identity: The present one.
    """
    before, now = saved["settings"], identity["settings"]
    if not isinstance(before, dict):  # of a version that kept one text of all
        return ["library's version"]
    same = {name for name in now if before.get(name) == now[name]}
    same |= {name for name in identity["untouched"] if name not in before}
    return sorted((before.keys() | now.keys()) - same)


def claim(folder: Path) -> bool:
    """Keep other processes from training the run that writes into `folder`, until `release`.

    The system releases it however this process ends. Where files cannot be locked, nothing is kept.

    Returns:
        False if another process trains it.
    """
    folder = folder.resolve()
    if folder not in _claims:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:  # nothing can be written there
            return True
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                return False
        _claims[folder] = file
    return True


def release() -> None:
    """Give up every `claim` of this process."""
    while _claims:
        os.close(_claims.popitem()[1])


def _time(path: Path) -> float:
    return max(p.stat().st_mtime for p in (path, previous(path)) if p.exists())


def _named(identity: dict[str, Any]) -> str:
    return ", ".join(f"{key} {identity[key]}" for key in ("algorithm", "task", "seed"))


def generators() -> dict[str, Any]:
    """The states of torch's, numpy's and Python's global random generators."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (name, keys.tolist(), position, has_gauss, gauss),  # type: ignore[union-attr]
        "python": random.getstate(),
    }


def set_generators(states: dict[str, Any]) -> None:
    """Put back what `generators` returned."""
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
    np.random.set_state(states["numpy"])
    random.setstate(states["python"])
