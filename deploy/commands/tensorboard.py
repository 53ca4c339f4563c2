"""`fedmosaic tensorboard`: write the figures of runs as event files for TensorBoard."""

import argparse
from pathlib import Path
from typing import Any

from common.errors import ConfigError


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic tensorboard`."""
    parser = commands.add_parser(
        "tensorboard",
        help="write the figures of runs as TensorBoard event files",
        description="Write every number of metrics.jsonl as a TensorBoard scalar, into one folder per run.",
        epilog="example: fedmosaic tensorboard runs/* --out events     (then: tensorboard --logdir events)",
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run folder")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder in which each run gets a new folder"
    )
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    targets = {options.out / run.resolve().name: run for run in options.runs}
    mistakes = [f"{run} has no metrics.jsonl" for run in options.runs if not (run / "metrics.jsonl").is_file()]
    mistakes += [f"{target} exists already; remove it, or name another --out" for target in targets if target.exists()]
    if len(targets) < len(options.runs):
        mistakes.append("two runs have folders of the same name")
    if mistakes:
        raise ConfigError("tensorboard", mistakes)
    for target, run in targets.items():
        print(f"{target}: {write_events(run, target)} steps of {run}")


def write_events(run: Path, target: Path) -> int:
    """Write the event file of a run into a new folder. Returns the number of steps.

    The step is the round. The wall times reproduce the durations of the run's rounds.

    Raises ConfigError when the package tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError("tensorboard", ["it is not installed: pip install 'fedmosaic[tensorboard]'"]) from None
    from server.record.run_folder import METRICS, read_rounds
    from server.record.scalars import scalars

    rounds = read_rounds(run)
    seconds = [line["seconds"]["total"] for line in rounds]
    began = (run / METRICS).stat().st_mtime - sum(seconds)
    with SummaryWriter(str(target)) as writer:
        for index, line in enumerate(rounds):
            for tag, value in scalars(line):
                writer.add_scalar(tag, value, line["round"], walltime=began + sum(seconds[: index + 1]))
    return len(rounds)
