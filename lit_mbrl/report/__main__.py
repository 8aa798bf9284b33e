"""Compare runs: `python -m lit_mbrl.report --results results --algorithms 'mppve*' mbpo sac`."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from lit_mbrl.errors import require, writing
from lit_mbrl.parser import Parser, command
from lit_mbrl.report.figures import PALETTE
from lit_mbrl.report.page import Page
from lit_mbrl.report.runs import from_files, from_mlflow, pick

DESCRIPTION = """Compare runs on one page that needs no other file, and in PNG files beside it:
learning curves, final returns, steps to a threshold and wall times. All runs that match count.
Patterns are those of a shell, in quotes: --algorithms 'mppve*' mbpo."""


def main(arguments: list[str] | None = None) -> int:
    """Write a report; returns the exit status.

    Args:
        arguments: The command line's; those of the process if None.
    """
    parser = Parser(prog="python -m lit_mbrl.report", description=DESCRIPTION, exit_on_error=False)
    add = parser.add_argument
    add("--results", type=Path | None, help="folder of <name>/<task>/seed<n>.csv, not MLflow")
    add("--tracking_uri", type=str | None, help="MLflow's store or server, as for training")
    add("--output", type=Path, default=Path("report"), help="folder to write to")
    add("--algorithms", nargs="+", default=[], help="only those that match one of these patterns")
    add("--tasks", nargs="+", default=[], help="only those that match one of these patterns")
    add("--tags", type=dict[str, str], default={}, help="only matching tags: --tags.seed 0")
    add(
        "--thresholds",
        type=dict[str, float],
        default={},
        help="return whose first reaching is reported: --thresholds.Hopper-v5 2700",
    )
    return command(report, parser, arguments)


def report(
    results: Path | None,
    tracking_uri: str | None,
    output: Path,
    algorithms: Sequence[str],
    tasks: Sequence[str],
    tags: Mapping[str, str],
    thresholds: Mapping[str, float],
) -> None:
    """Write a report of the runs that match, and say where it is.

    Args:
        results: Folder of <name>/<task>/seed<n>.csv; MLflow if None.
        tracking_uri: Store or server, if not the one that training records in.
        output: Folder to write to.
        algorithms: Patterns of algorithms; all if empty.
        tasks: Patterns of tasks; all if empty.
        tags: A pattern for each tag that counts.
        thresholds: By task, the return whose first reaching is reported.

    Raises:
        ConfigurationError: If an option cannot be used, or no run matches.
    """
    if results is not None:
        require(tracking_uri is None, "tracking_uri", tracking_uri, "nothing beside --results")
        runs, source = from_files(results), f"the folder {results}"
    else:
        runs = from_mlflow(tracking_uri)
        source = "MLflow"
    runs = pick(runs, algorithms, tasks, tags)
    labels = sorted({run.label for run in runs})
    few = len(labels) <= len(PALETTE)
    require(few, "algorithms", labels, f"at most {len(PALETTE)}, one for each colour")
    known = list(dict.fromkeys(run.task for run in runs))
    for task in thresholds:
        require(task in known, "thresholds", task, f"a task of the report: {', '.join(known)}")
    again = shlex.join(["python", "-m", "lit_mbrl.report", *sys.argv[1:]])
    page = Page(output, runs, thresholds, source, again)
    with writing("output", output, "a folder that can be made and written to"):
        path = page.write()
    print(f"{path}: {len(runs)} runs of {', '.join(page.labels)} on {', '.join(known)}")


if __name__ == "__main__":
    sys.exit(main())
