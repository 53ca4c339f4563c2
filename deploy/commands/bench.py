"""`fedmosaic bench`: compare methods, or measure speed and memory."""

import argparse
import logging
import os
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from deploy.commands.shared.device import add_device
from deploy.commands.shared.experiment import add_overrides, overrides
from deploy.commands.shared.given import readable

SUITES = Path("configs/bench")
SPEED, TRAIN, MEMORY = "speed", "train", "memory"
"""The suites without a file. They measure programs and do not compare methods."""
EXAMPLES = [1000, 10_000, 50_000]


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic bench`."""
    parser = commands.add_parser(
        "bench",
        help="compare methods: run settings x methods x seeds, write tables and plots",
        description="Tune and compare methods, and write tables (Markdown, LaTeX), plots and every single result. For "
        "your own shards, `fedmosaic init DIR --shards SHARDS` writes a suite.",
        epilog="example: fedmosaic bench fedcmi --data data --setting av-digits-unequal     "
        "fedmosaic bench experiment/suite.yaml --method fedavg --method fedcmi",
    )
    parser.add_argument(
        "suite", metavar="SUITE", help="a suite: a file, the name of a file in configs/bench/, speed, train, or memory"
    )
    add_overrides(parser)
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with the data sets (default: data)")
    parser.add_argument(
        "--shards",
        type=Path,
        metavar="DIR",
        help="your own shards: one folder per site, and test (default: the suite's)",
    )
    parser.add_argument("--setting", action="append", metavar="NAME", help="only this setting (repeatable)")
    parser.add_argument("--method", action="append", metavar="NAME", help="only this row of the suite (repeatable)")
    parser.add_argument("--seeds", type=int, metavar="N", help="only the first N seeds of the suite")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), metavar="N", help="number of processes (default: one per core)"
    )
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="folder for shards and finished runs (default: bench/SUITE)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for tables and plots (default: the --work folder)"
    )
    add_device(parser, what="of the runs, except for suites speed and memory")
    speed = parser.add_argument_group(
        "suites speed (time of rounds, memory and features, compared with stock Flower and plain PyTorch) and train (a "
        "client's epoch, compared with a plain PyTorch loop)"
    )
    speed.add_argument("--only", action="append", metavar="NAME", help="only this measurement (repeatable)")
    speed.add_argument("--repeats", type=int, default=3, metavar="N", help="repeats per measurement (default: 3)")
    speed.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="type of the layers in suite train (default: float32)",
    )
    speed.add_argument("--batch-size", type=int, default=32, metavar="N", help="examples per step of suite train")
    memory = parser.add_argument_group("suite memory: peak memory of a site by the number of its examples")
    memory.add_argument(
        "--examples",
        action="append",
        type=int,
        metavar="N",
        help=f"number of examples (repeatable; default: {', '.join(map(str, EXAMPLES))})",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="suites speed, train and memory: write the rows also to a JSON file"
    )
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    file = None if options.suite in (SPEED, TRAIN, MEMORY) else _file(options.suite)
    from deploy.study.bench import command

    logging.basicConfig(level=logging.ERROR)
    if options.suite == TRAIN:
        from deploy.study.bench.training.command import run as train

        chosen = {"device": options.device, "precision": options.precision, "batch_size": options.batch_size}
        train(options.only, options.repeats, options.json, {**chosen, "small": False})
        return
    if options.suite == MEMORY:
        from deploy.study.bench.site_memory.command import run as run_memory

        run_memory(options.examples or EXAMPLES, options.work, options.json)
        return
    if file is None:
        from deploy.study.bench.speed.command import run

        run(options.only, options.repeats, options.json)
        return
    command.run(
        file,
        overrides(options),
        options.data,
        options.setting,
        options.seeds,
        options.workers,
        options.work,
        options.out,
        options.device,
        options.shards,
        options.method,
    )


def _file(name: str) -> Path:
    """The file of a suite: the argument itself, or the file of that name in configs/bench/.

    Raises ConfigError.
    """
    beside = SUITES / f"{name}.yaml"
    if Path(name).suffix in (".yaml", ".yml") or not SUITES.is_dir():
        readable(Path(name))
        return Path(name)
    if not beside.exists():
        from common.config.component import unknown

        raise ConfigError("bench", [unknown("suite", name, sorted(path.stem for path in SUITES.glob("*.yaml")))])
    return beside
