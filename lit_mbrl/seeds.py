"""Train several seeds side by side: `python -m lit_mbrl.seeds --seeds 0 1 2 --config ...`."""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from statistics import mean, pstdev
from types import FrameType
from typing import Any, TextIO

from jsonargparse import ArgumentError
from tqdm import tqdm

from lit_mbrl.callbacks.progress import FOLLOWED
from lit_mbrl.callbacks.trainer import run_logger_of
from lit_mbrl.errors import ConfigurationError, one_line, require
from lit_mbrl.fit import FitCLI, build, quieten
from lit_mbrl.interruption import signals
from lit_mbrl.recording import current_commit
from lit_mbrl.tracking import FAILURES, RunLogger

DESCRIPTION = """Train several seeds side by side, each in a process with its share of the cores.
All options of python -m lit_mbrl.fit follow; they hold for every seed. A seed that fails does not
end the others. What a seed writes to standard error is kept in logs/RUN/seedN.log."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    0 if every seed has succeeded, 1 if one has failed, 2 if what was given cannot be used, and
    128 + n after the signal n, which every seed is passed.

    Args:
        arguments: The command line's; those of the process if None.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    quieten()
    try:
        given, options = parse(arguments)
        # The logger of the run that is never begun is the parent of the seeds' runs.
        never = ["--seed_everything", str(given.seeds[0]), "--results.folder", "null"]
        cli = build([*options, *never])
    except (ArgumentError, ConfigurationError) as error:
        print("error:", one_line(error), file=sys.stderr)
        return 2
    parent = run_logger_of(cli.trainer)
    if parent is not None:
        tag(parent, cli, given.seeds, shlex.join(["python", "-m", "lit_mbrl.seeds", *arguments]))
    if given.ckpt_path is not None:
        options += ["--ckpt_path", given.ckpt_path]
    folder = cli.config["checkpoint"]["folder"]
    last_step = (cli.trainer.max_epochs or 0) * cli.datamodule.steps_per_epoch
    del cli  # its networks and buffers
    seeds = Seeds(given.seeds, given.at_once, options, folder, parent.run_id if parent else None)
    statuses = seeds.run()
    failed = [str(seed) for seed, status in statuses.items() if status != 0]
    if parent is not None:
        summarize(parent, last_step)
        stopped = "KILLED" if seeds.signum else "FAILED"
        parent.terminate(stopped if failed else "FINISHED")
    if seeds.signum and failed:
        return 128 + seeds.signum
    if failed:
        print(f"error: {len(failed)} of {len(statuses)} seeds failed:", *failed, file=sys.stderr)
    return 1 if failed else 0


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our own options, and those of `lit_mbrl.fit`.

    Raises:
        ArgumentError: If a value has the wrong type.
        ConfigurationError: If a value cannot be used.
    """
    parser = argparse.ArgumentParser(
        prog="python -m lit_mbrl.seeds",
        usage="%(prog)s --seeds N [N ...] [--at_once N] --config ALGORITHM.yaml [OPTIONS OF FIT]",
        description=DESCRIPTION,
        allow_abbrev=False,
        exit_on_error=False,
    )
    add = parser.add_argument
    add("--seeds", type=int, nargs="+", default=[], metavar="N", help="instead of seed_everything")
    add("--at_once", type=int, default=cores(), metavar="N", help="by default as many as cores")
    add("--ckpt_path", metavar="last", help="go on with the runs of these seeds")
    given, options = parser.parse_known_args(arguments)
    seeds = given.seeds
    usable = bool(seeds) and len(set(seeds)) == len(seeds)
    usable = usable and all(0 <= seed < 2**32 for seed in seeds)
    require(usable, "seeds", seeds, "different integers from 0 to 2**32 - 1")
    require(given.at_once >= 1, "at_once", given.at_once, "an integer of at least 1")
    one = "last, the newest of each seed"
    require(given.ckpt_path in (None, "last"), "ckpt_path", given.ckpt_path, one)
    return given, options


def cores() -> int:
    """The cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Seeds:
    """Processes of `lit_mbrl.fit`, one for each seed, and what is seen of them.

    On a terminal each has a bar; elsewhere its lines are printed with the seed before them.

    Args:
        seeds: To be trained.
        at_once: The most processes at a time; they share the cores.
        options: Of `lit_mbrl.fit`.
        folder: `checkpoint.folder`, of which each seed has a part of its own.
        parent: MLflow's id of the run that theirs belong to, if they have any.
    """

    def __init__(
        self,
        seeds: list[int],
        at_once: int,
        options: list[str],
        folder: str | None,
        parent: str | None,
    ):
        self.seeds, self.options, self.folder = seeds, options, folder
        self.at_once = min(at_once, len(seeds))
        self.logs = Path("logs", parent or "unnamed")
        self.signum: int | None = None
        self._running: list[subprocess.Popen[str]] = []
        self._bars: dict[int, tqdm[Any]] = {}
        threads = max(1, cores() // self.at_once)
        self._environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
        if parent is not None:
            self._environment["MLFLOW_RUN_CONTEXT"] = json.dumps({"mlflow.parentRunId": parent})
        if sys.stderr.isatty():
            self._environment[FOLLOWED] = "1"

    def run(self) -> dict[int, int | None]:
        """Train all; returns their exit statuses, None for one that a signal kept from starting."""
        self.logs.mkdir(parents=True, exist_ok=True)
        if FOLLOWED in self._environment:
            self._bars = {
                seed: tqdm(desc=f"seed {seed} waits", unit=" env steps", dynamic_ncols=True)
                for seed in self.seeds
            }
        handlers = {number: signal.signal(number, self._pass) for number in signals()}
        try:
            with ThreadPoolExecutor(self.at_once) as pool:
                return dict(zip(self.seeds, pool.map(self._train, self.seeds), strict=True))
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for bar in self._bars.values():
                bar.close()

    def _train(self, seed: int) -> int | None:
        if self.signum is not None:
            return None
        words = [*self.options, "--seed_everything", str(seed)]
        if self.folder is not None:
            words += ["--checkpoint.folder", str(Path(self.folder, f"seed{seed}"))]
        log = self.logs / f"seed{seed}.log"
        with (
            log.open("a") as errors,
            subprocess.Popen(
                [sys.executable, "-m", "lit_mbrl.fit", *words],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                errors="replace",
                process_group=0,  # or Ctrl-C would reach it twice, which ends it at once
            ) as process,
        ):
            self._running.append(process)
            if self.signum is not None:  # it came meanwhile
                process.send_signal(self.signum)
            assert process.stdout is not None
            if self._bars:
                self._bars[seed].set_description(f"seed {seed} warm-up")
            for line in process.stdout:
                self._show(seed, line.rstrip("\n"))
        status = process.returncode
        if self._bars:
            bar = self._bars[seed]
            word = "stopped" if self.signum else "failed" if status else "done"
            bar.set_description(f"seed {seed} {word}")
            bar.update(0 if status or bar.total is None else bar.total - bar.n)
        if status and self.signum is None:
            reason = (log.read_text(errors="replace").splitlines() or ["nothing said"])[-1]
            self._say(f"seed {seed} failed: {reason} ({log})", sys.stderr)
        return status

    def _show(self, seed: int, line: str) -> None:
        if not (self._bars and line.startswith('{"step": ')):
            self._say(f"seed {seed}, {line}", sys.stdout)
            return
        try:
            told, bar = json.loads(line), self._bars[seed]
        except json.JSONDecodeError:  # cut by the process's end
            return
        if bar.total is None:  # the first time
            bar.set_description(f"seed {seed}")
            bar.reset(told["of"])
            bar.initial = bar.n = told["step"]
        bar.set_postfix(told["shown"], refresh=False)
        bar.update(told["step"] - bar.n)

    def _say(self, line: str, file: TextIO) -> None:
        with suppress(OSError), tqdm.external_write_mode(file):  # a terminal that was closed
            print(line, file=file, flush=True)

    def _pass(self, signum: int, frame: FrameType | None) -> None:
        """Pass a signal on: the first makes the seeds save and end, the second ends them."""
        if self.signum is None:
            line = f"{signal.Signals(signum).name}: the seeds finish their step and save\n"
            with suppress(OSError):  # see `Interruption`
                os.write(2, line.encode())
        self.signum = signum
        for process in list(self._running):
            process.send_signal(signum)


def tag(parent: RunLogger, cli: FitCLI, seeds: list[int], command: str) -> None:
    """Say what the parent run is of."""
    tags = {
        "algorithm": type(cli.model).__name__,
        "task": cli.datamodule.env_id,
        "seeds": " ".join(map(str, seeds)),
        "commit": current_commit(),
        "command": command,
    }
    for key, value in tags.items():
        parent.experiment.set_tag(parent.run_id, key, value)


def summarize(parent: RunLogger, last_step: int) -> None:
    """Log the mean and standard deviation of the final returns of the seeds that have succeeded."""
    with suppress(*FAILURES):  # a server that is away
        runs = parent.experiment.search_runs(
            [parent.experiment_id],
            f"tags.`mlflow.parentRunId` = '{parent.run_id}' and attributes.status = 'FINISHED'",
        )
        metric = "eval/return_mean"
        finals = [run.data.metrics[metric] for run in runs if metric in run.data.metrics]
        found: dict[str, float] = {"seeds/succeeded": len(runs)}
        if finals:
            average, spread = mean(finals), pstdev(finals)
            found |= {metric: average, "seeds/return_std": spread}
            seeds = f"{len(finals)} seed{'s' if len(finals) > 1 else ''}"
            print(f"{seeds}: final return {average:.1f} ± {spread:.1f}. {parent.where}", flush=True)
        parent.log_metrics(found, last_step)


if __name__ == "__main__":
    sys.exit(main())
