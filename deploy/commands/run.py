"""`fedmosaic run`: run an experiment with one of the engines."""

import argparse
import ipaddress
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import ConfigError
from deploy.commands.shared.device import add_device
from deploy.commands.shared.experiment import add_config, experiment_of
from deploy.commands.shared.frozen import quiet_libraries
from deploy.commands.shared.given import readable, shards_there
from deploy.hosts.start import add_operator_token, operator_token, operator_token_mistakes

if TYPE_CHECKING:
    from common.config.component import Reference
    from common.config.experiment import Experiment
    from deploy.engines.launch import Plan

ENGINES = ("inprocess", "simulation", "processes", "superlink")


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic run`."""
    parser = commands.add_parser(
        "run",
        help="run an experiment",
        epilog="example: fedmosaic run configs/digits-mini-fedcmi.yaml --engine processes",
    )
    add_config(parser)
    parser.add_argument("--engine", choices=ENGINES, default="simulation")
    parser.add_argument(
        "--shards",
        type=Path,
        metavar="DIR",
        help="folder with the clients' shards (default: shards/NAME, made if absent)",
    )
    parser.add_argument(
        "--test-shard",
        type=Path,
        metavar="DIR",
        help="the server's test shard (default: SHARDS/test if it exists)",
    )
    parser.add_argument(
        "--probe-shard",
        type=Path,
        metavar="DIR",
        help="the server's probe set, for strategy cka (default: SHARDS/probe if it exists)",
    )
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="a new folder for the results (default: runs/NAME)")
    parser.add_argument(
        "--init",
        type=Path,
        metavar="RUN",
        help="start from the model in a run's folder, in an exported folder or in a .safetensors file of one of them "
        "(default: random weights)",
    )
    parser.add_argument("--resume", action="store_true", help="continue a run that did not finish")
    parser.add_argument(
        "--track",
        action="append",
        default=[],
        metavar="TRACKER",
        help="show the figures of the run in a tracker while it runs: a name, or a name with options, e.g. "
        "'{name: prometheus, port: 9500}' (repeatable)",
    )
    said = parser.add_mutually_exclusive_group()
    said.add_argument("--quiet", action="store_true", help="print only the run folder, at the end")
    said.add_argument("--json", action="store_true", help="print the summary as JSON, and progress to standard error")
    add_device(parser, what="of the clients on this machine")
    parser.add_argument(
        "--gpus-per-client",
        type=float,
        metavar="N",
        help="engine simulation with a GPU: GPUs per client, e.g. 0.25 for four clients on one GPU (default: 1)",
    )
    parser.add_argument(
        "--server-device",
        default="cpu",
        metavar="DEVICE",
        help="device of the server's evaluation and of its representations for strategy cka (default: cpu)",
    )
    link = parser.add_argument_group("engine superlink")
    link.add_argument("--address", metavar="HOST:PORT", help="address of the SuperLink's control API")
    link.add_argument("--root-certificates", type=Path, metavar="FILE", help="CA certificate of the SuperLink")
    link.add_argument("--insecure", action="store_true", help="connect without encryption")
    add_operator_token(link)
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    readable(options.config)
    shards_there([options.test_shard, options.probe_shard] if options.engine != "superlink" else [])
    from deploy.engines.display import show

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    with _said_elsewhere(options):
        experiment, link = experiment_of(options), _link(options)
        folder = run_to_end(options, experiment, link)
    if options.json:
        assert folder is not None
        print((folder / "summary.json").read_text(encoding="utf-8").strip())
    elif options.quiet:
        print(folder or "")
    else:
        show(folder)


@contextmanager
def _said_elsewhere(options: argparse.Namespace) -> Iterator[None]:
    """Send the progress lines to standard error with --json, and suppress them with --quiet."""
    if options.quiet:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            yield
    elif options.json:
        with redirect_stdout(sys.stderr):
            yield
    else:
        yield


def run_to_end(options: argparse.Namespace, experiment: "Experiment", link: Any) -> Path | None:
    """Run the experiment to its end. Returns the run folder, or None if the folder is on another machine."""
    from deploy.engines.display import follow
    from deploy.engines.launch import launch

    local = _is_local(options)
    plan = _plan(options, experiment, local)
    if plan.engine == "inprocess":
        _run_here(plan)
        return plan.run_folder
    with launch(plan, link, watch=local, say=_say) as launched:
        follow(launched, experiment)
    return launched.run_folder


def _say(text: str) -> None:
    print(text, flush=True)


def _plan(options: argparse.Namespace, experiment: "Experiment", local: bool) -> "Plan":
    """The experiment with its files. Missing shards are made.

    local: whether the paths are on this machine. Otherwise they are on the SuperLink's host and are not checked here.
    """
    from deploy.engines.launch import Plan

    trackers = _trackers(options)
    shards: Path = options.shards or Path("shards") / experiment.name
    test_shard: Path | None = options.test_shard
    probe_shard: Path | None = options.probe_shard
    folder: Path | None = options.run_dir
    if options.engine != "superlink":
        _prepare_shards(experiment, shards)
        test_shard = test_shard or (shards / "test" if (shards / "test").exists() else None)
        probe_shard = probe_shard or (shards / "probe" if (shards / "probe").exists() else None)
    init = _init(options, local)
    if local:
        folder = (_resumed_folder if options.resume else _new_folder)(folder, experiment).resolve()
        test_shard = test_shard.resolve() if test_shard else None
        probe_shard = probe_shard.resolve() if probe_shard else None
    device, share = _hardware(options)
    return Plan(
        options.engine,
        experiment,
        shards,
        test_shard,
        probe_shard,
        folder,
        options.resume,
        device,
        share,
        options.server_device,
        init,
        trackers,
    )


def _init(options: argparse.Namespace, local: bool) -> Path | None:
    """The model to start from.

    Raises ConfigError when it does not exist, or when the run continues.
    """
    from server.rounds.starting import RESUMED

    path: Path | None = options.init
    if path is None:
        return None
    if options.resume:
        raise ConfigError("--init", [RESUMED])
    if not local:
        return path
    if not path.exists():
        raise ConfigError("--init", [f"there is no {path}"])
    return path.resolve()


def _trackers(options: argparse.Namespace) -> "tuple[Reference, ...]":
    """The trackers of --track.

    Raises ConfigError with every mistake. With the engine superlink, options are mistakes, because Flower sends the
    settings of a run to every node.
    """
    from server.trackers.shared.chosen import SOURCE, references

    chosen = references(options.track)
    if options.engine == "superlink":
        plain = references([one["name"] for one in chosen])
        mistakes = [
            f"{given['name']}: with --engine superlink, name the tracker alone, because Flower sends the settings of a "
            "run to every node; the server reads addresses from its own environment variables"
            for given, bare in zip(chosen, plain, strict=True)
            if given != bare
        ]
        if mistakes:
            raise ConfigError(SOURCE, mistakes)
    return tuple(chosen)


def _hardware(options: argparse.Namespace) -> tuple[str, float]:
    """The device of the clients on this machine, and the GPUs per client of a simulation.

    Raises DeviceError when this machine does not have the device.
    """
    from common.hardware.device import CPU, described, find_device

    if options.engine == "superlink":
        return CPU, 0.0
    find_device(options.server_device)
    device = find_device(options.device)
    if device.type == CPU:
        return CPU, 0.0
    print(f"clients compute on {described(device)}")
    if options.engine != "simulation" or device.type != "cuda":
        return options.device, 0.0
    # Ray gives each client its GPU, which is the only one that the client's process can see.
    return device.type, 1.0 if options.gpus_per_client is None else options.gpus_per_client


def _run_here(plan: "Plan") -> None:
    """Run the server and the clients in this process, and write the log to the run folder."""
    from deploy.engines.display import Beside
    from deploy.engines.in_process import run_here

    assert plan.run_folder is not None
    (plan.run_folder / "logs").mkdir(parents=True, exist_ok=True)
    form = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, filename=plan.run_folder / "logs" / "run.log", force=True)
    with Beside(plan.run_folder, plan.experiment):
        run_here(plan.settings(), plan.shards, plan.experiment.data.clients)


def _new_folder(wanted: Path | None, experiment: "Experiment") -> Path:
    """The folder of a new run, which does not exist yet.

    Raises ConfigError when it exists or cannot be made.
    """
    from server.record.run_folder import free_folder

    if wanted is not None and wanted.exists():
        raise ConfigError("--run-dir", [f"{wanted} exists already: name a new folder, or add --resume to continue"])
    folder = wanted or free_folder(Path("runs") / experiment.name)
    try:
        folder.mkdir(parents=True)
        folder.rmdir()  # the run makes it when it starts
    except OSError as error:
        raise ConfigError("--run-dir", [f"{folder} cannot be made: {error.strerror}"]) from None
    return folder


def _resumed_folder(wanted: Path | None, experiment: "Experiment") -> Path:
    """The folder of the run to continue. Prints the last finished round and the damaged checkpoints."""
    from server.record.checkpoint import check_same, damaged_checkpoints, load_checkpoint
    from server.record.run_folder import SUMMARY, unfinished_folder

    folder = unfinished_folder(wanted or Path("runs") / experiment.name)
    for name in damaged_checkpoints(folder):
        print(f"checkpoint {name} is damaged: continuing from the checkpoint before it", file=sys.stderr)
    checkpoint = load_checkpoint(folder)
    if checkpoint is not None:
        check_same(experiment, checkpoint)
    print(f"continuing {folder} after round {checkpoint.round if checkpoint else 0}")
    (folder / SUMMARY).unlink(missing_ok=True)
    return folder


def _link(options: argparse.Namespace) -> Any:
    from deploy.engines.launch import Link

    mistakes = []
    if options.engine != "superlink":
        if options.address or options.root_certificates or options.insecure or options.operator_token:
            given = "--address, --root-certificates, --operator-token and --insecure"
            mistakes.append(f"{given} need --engine superlink")
    elif not options.address:
        mistakes.append("--engine superlink needs --address HOST:PORT")
    elif bool(options.root_certificates) == options.insecure:
        mistakes.append("--engine superlink needs --root-certificates FILE, or --insecure for no encryption")
    elif options.root_certificates and not options.root_certificates.is_file():
        mistakes.append(f"--root-certificates: there is no file {options.root_certificates}")
    elif options.json and not _is_local(options):
        mistakes.append("--json: the summary will be on the SuperLink's host, not on this machine; leave --json out")
    mistakes += [*operator_token_mistakes(options), *_hardware_mistakes(options)]
    if mistakes:
        raise ConfigError("command line", mistakes)
    if options.engine != "superlink":
        return None
    trust = str(options.root_certificates.resolve()) if options.root_certificates else ""
    return Link(options.address, trust, operator_token(options))


def _hardware_mistakes(options: argparse.Namespace) -> Iterator[str]:
    share = options.gpus_per_client
    if options.engine == "superlink" and options.device != "cpu":
        yield "--device: each site chooses its own device, with `fedmosaic node --device`; leave --device out"
    if options.engine == "simulation" and options.device.startswith("cuda:"):
        yield (
            f"--device {options.device}: a simulation divides its clients among all GPUs; use --device cuda, and "
            "CUDA_VISIBLE_DEVICES to choose GPUs"
        )
    if share is None:
        return
    if options.engine != "simulation" or options.device == "cpu":
        yield "--gpus-per-client needs --engine simulation and a --device with GPUs, e.g. --device auto"
    if not (0 < share <= 1 or (share > 1 and share.is_integer())):
        yield f"--gpus-per-client is {share:g}: it must be a share from 0 to 1, or a whole number"


def _is_local(options: argparse.Namespace) -> bool:
    """Whether the ServerApp will run on this machine."""
    if options.engine != "superlink":
        return True
    host = options.address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _prepare_shards(experiment: "Experiment", shards: Path) -> None:
    """Make missing shards, and check that existing shards fit the experiment."""
    from common.data.shard import Shard
    from common.data.sites import client_folders
    from common.split.make import check_made, make_shards

    if not shards.exists():
        print(f"making shards in {shards}")
        make_shards(experiment, shards)
    check_made(experiment, shards)
    folders = client_folders(shards, experiment.data.clients)
    for folder in folders:
        Shard.open(folder)
    if experiment.completion:
        _complete_all(experiment, shards, folders)


def _complete_all(experiment: "Experiment", shards: Path, folders: list[Path]) -> None:
    """Complete the shards and make the probe set. In a deployment, each site and the server do this themselves."""
    from common.data.shard import Shard
    from common.data.sites import PROBE
    from common.hardware.device import AUTO, find_device
    from deploy.shards.complete import PROBE_PER_CLASS, complete_shards, make_probe, needs_probe

    quiet_libraries()
    device = str(find_device(AUTO))
    complete_shards(experiment, folders, device)
    if needs_probe(experiment) and not (shards / PROBE).exists():
        print(f"making the server's probe set in {shards / PROBE}")
        make_probe(experiment, Shard.open(folders[0]).info, shards / PROBE, PROBE_PER_CLASS, device)
