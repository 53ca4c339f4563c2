"""`fedmosaic probe`: make the server's probe set from the names of the classes."""

import argparse
from pathlib import Path
from typing import Any

from deploy.commands.shared.device import add_device
from deploy.commands.shared.experiment import add_completing, experiment_of
from deploy.commands.shared.frozen import quiet_libraries
from deploy.commands.shared.given import readable, shards_there


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic probe`."""
    parser = commands.add_parser(
        "probe",
        help="make the server's probe set of synthetic examples, from the names of the classes",
        epilog="example: fedmosaic probe shards/test --with configs/birds-mini-fedmvp.yaml --out shards/probe",
    )
    parser.add_argument("shard", type=Path, metavar="SHARD", help="any shard of the experiment; its classes are used")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--per-class", type=int, metavar="N", help="examples per class (default: 2)")
    add_completing(parser)
    add_device(parser, default="auto", what="of the frozen models")
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    readable(options.config)
    shards_there([options.shard])
    quiet_libraries()
    from common.data.shard import Shard
    from common.hardware.device import find_device
    from deploy.shards.complete import PROBE_PER_CLASS, make_probe

    info, device = Shard.open(options.shard).info, str(find_device(options.device))
    per_class = options.per_class or PROBE_PER_CLASS
    made = make_probe(experiment_of(options), info, options.out, per_class, device)
    print(f"{made}: {len(info.classes) * per_class} synthetic examples")
