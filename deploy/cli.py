"""The command `fedmosaic`."""

import argparse
import ipaddress
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn, get_args

import yaml

from common.config import Experiment, read
from common.errors import ConfigError, DataError, FedmosaicError, ModelError
from deploy import certs, doctor, engines, node, register, superlink, watch

SPEED = "speed"
"""The suite that is no file: it compares programs, not methods."""
EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command and exit: 0 done, 1 the run failed, 2 a mistake in what was asked for, 130 interrupted."""
    for number in (signal.SIGTERM, signal.SIGINT):  # the latter is ignored in jobs that a script starts with &
        signal.signal(number, _interrupt)
    os.environ.setdefault("TQDM_DISABLE", "1")  # the bars of flwr-datasets; ours say what matters
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except (ConfigError, DataError, ModelError) as error:
        _fail(error, EXIT_USAGE)
    except FedmosaicError as error:
        _fail(error, EXIT_FAILED)
    except KeyboardInterrupt:
        print("interrupted; everything that was started has been stopped", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(0)


def _fail(error: FedmosaicError, status: int) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(status)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fedmosaic", description="Multimodal federated learning on Flower.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    shard = commands.add_parser("shard", help="divide a data set into one shard a client and a test shard")
    _add_config(shard)
    shard.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder for the shards")
    shard.set_defaults(command=_shard)

    run = commands.add_parser(
        "run",
        help="run an experiment",
        epilog="example: fedmosaic run configs/digits-mini-fedcmi.yaml --engine processes",
    )
    _add_config(run)
    run.add_argument("--engine", choices=get_args(engines.Engine), default="simulation")
    run.add_argument(
        "--shards",
        type=Path,
        metavar="DIR",
        help="the clients' shards (default: shards/NAME, made if absent)",
    )
    run.add_argument(
        "--test-shard",
        type=Path,
        metavar="DIR",
        help="the server's test shard (default: SHARDS/test if there)",
    )
    run.add_argument(
        "--probe-shard",
        type=Path,
        metavar="DIR",
        help="the server's probe set, for strategy cka (default: SHARDS/probe if there)",
    )
    run.add_argument("--run-dir", type=Path, metavar="DIR", help="a new folder for the results (default: runs/NAME)")
    run.add_argument("--resume", action="store_true", help="go on with a run that did not end")
    link = run.add_argument_group("engine superlink")
    link.add_argument("--address", metavar="HOST:PORT", help="of the SuperLink's control API")
    link.add_argument("--root-certificates", type=Path, metavar="FILE", help="CA certificate of the SuperLink")
    link.add_argument("--insecure", action="store_true", help="connect without encryption")
    run.set_defaults(command=_run)
    _add_completion(commands)
    _add_bench(commands)
    for module in (certs, superlink, register, node, doctor, watch):
        module.add_parser(commands)
    return parser


def _add_completion(commands: Any) -> None:
    complete = commands.add_parser(
        "complete",
        help="let frozen models make what the examples of a shard miss",
        epilog="example: fedmosaic complete shards/client-0 --with configs/birds-mini-fedmvp.yaml",
    )
    complete.add_argument("shards", type=Path, nargs="+", metavar="SHARD", help="a folder with training examples")
    probe = commands.add_parser(
        "probe",
        help="make the server's probe set of synthetic examples, from the names of the classes",
        epilog="example: fedmosaic probe shards/test --with configs/birds-mini-fedmvp.yaml --out shards/probe",
    )
    probe.add_argument("shard", type=Path, metavar="SHARD", help="any shard of the experiment; its classes are read")
    probe.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    probe.add_argument("--per-class", type=int, metavar="N", help="examples of a class (default: 2)")
    quality = commands.add_parser(
        "quality",
        help="compare what was generated with real values, where all shards lie together",
        epilog="example: fedmosaic quality shards/birds-mini-fedmvp --with configs/birds-mini-fedmvp.yaml",
    )
    quality.add_argument("shards", type=Path, metavar="DIR", help="the folder of client-0, client-1, ... and test")
    quality.add_argument(
        "--scorer", default="birds-coca", metavar="NAME", help="a CLIP or CoCa model (default: birds-coca)"
    )
    for parser, command in ((complete, _complete), (probe, _probe), (quality, _quality)):
        parser.add_argument(
            "--with", type=Path, required=True, metavar="CONFIG", dest="config", help="its section completion counts"
        )
        _add_overrides(parser)
        parser.set_defaults(command=command)
    for parser in (complete, probe):
        parser.add_argument("--device", metavar="NAME", help="e.g. cpu or cuda (default: a GPU where there is one)")
    pretrain = commands.add_parser(
        "pretrain",
        help="train the small frozen models that come with the project, from nothing",
        epilog="example: fedmosaic pretrain birds-coca --out weights/birds-coca",
    )
    pretrain.add_argument("model", choices=["birds-coca", "birds-diffusion"])
    pretrain.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    pretrain.add_argument("--seed", type=int, default=7, metavar="N")
    pretrain.add_argument("--effort", type=float, default=1.0, metavar="X", help="share of the usual training steps")
    pretrain.set_defaults(command=_pretrain)


def _add_bench(commands: Any) -> None:
    bench = commands.add_parser(
        "bench",
        help="compare methods: settings x methods x seeds, tables and plots",
        epilog="example: fedmosaic bench fedcmi --data data --setting av-digits-unequal",
    )
    bench.add_argument("suite", metavar="SUITE", help="a file, the name of one in configs/bench/, or speed")
    _add_overrides(bench)
    bench.add_argument("--data", type=Path, metavar="DIR", help="where the folders of data sets lie (default: data)")
    bench.add_argument("--setting", action="append", metavar="NAME", help="only this setting (repeatable)")
    bench.add_argument("--seeds", type=int, metavar="N", help="only the first N seeds of the suite")
    bench.add_argument(
        "--workers", type=int, default=os.cpu_count(), metavar="N", help="processes (default: all cores)"
    )
    bench.add_argument("--work", type=Path, metavar="DIR", help="shards and finished runs (default: bench/SUITE)")
    bench.add_argument("--out", type=Path, metavar="DIR", help="where tables and plots go (default: the --work folder)")
    speed = bench.add_argument_group("suite speed: rounds, memory, features, against stock Flower and plain PyTorch")
    speed.add_argument("--only", action="append", metavar="NAME", help="only this measurement (repeatable)")
    speed.add_argument("--repeats", type=int, default=3, metavar="N", help="of each measurement (default: 3)")
    speed.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to a file")
    bench.set_defaults(command=_bench)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG", help="an experiment file, e.g. from configs/")
    _add_overrides(parser)


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change an option, e.g. --set train.lr=0.1 (repeatable)",
    )


def _experiment(options: argparse.Namespace) -> Experiment:
    return read(options.config, _overrides(options))


def _overrides(options: argparse.Namespace) -> dict[str, Any]:
    overrides: dict[str, Any] = {}
    for text in options.overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError("--set", [f"{text!r} is not KEY=VALUE"])
        try:
            overrides[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            overrides[key] = value
    return overrides


def _shard(options: argparse.Namespace) -> None:
    from common.data.make import make_shards

    experiment = _experiment(options)
    folders = make_shards(experiment, options.out, lambda name: print(f"writing {options.out / name}"))
    print(f"{len(folders)} clients' shards and a test shard in {options.out}")


def _run(options: argparse.Namespace) -> None:
    from deploy.display import follow, show

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    experiment = _experiment(options)
    link = _link(options)
    shards: Path = options.shards or Path("shards") / experiment.name
    test_shard: Path | None = options.test_shard
    probe_shard: Path | None = options.probe_shard
    folder: Path | None = options.run_dir
    local = options.engine != "superlink" or _is_loopback(options.address)
    if options.engine != "superlink":
        _prepare_shards(experiment, shards)
        test_shard = test_shard or (shards / "test" if (shards / "test").exists() else None)
        probe_shard = probe_shard or (shards / "probe" if (shards / "probe").exists() else None)
    if local:  # else the paths are of the SuperLink's host, and not ours to look at
        folder = (_resumed_folder if options.resume else _new_folder)(folder, experiment).resolve()
        test_shard = test_shard.resolve() if test_shard else None
        probe_shard = probe_shard.resolve() if probe_shard else None
    if options.engine == "inprocess":
        assert folder is not None
        _run_here(experiment, shards, test_shard, probe_shard, folder, options.resume)
        show(folder)
        return
    with engines.launch(
        options.engine, experiment, shards, test_shard, probe_shard, folder, link, watch=local, resume=options.resume
    ) as launched:
        follow(launched, experiment)
    show(launched.run_folder)


def _run_here(
    experiment: Experiment, shards: Path, test: Path | None, probe: Path | None, folder: Path, resume: bool
) -> None:
    """Run server and clients in this process, with the log in the run folder."""
    from deploy.display import Beside
    from deploy.in_process import run_here

    (folder / "logs").mkdir(parents=True, exist_ok=True)
    form = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, filename=folder / "logs" / "run.log", force=True)
    settings = engines.run_settings("inprocess", experiment, shards, test, probe, folder, resume)
    with Beside(folder, experiment):
        run_here(settings, shards, experiment.data.clients)


def _complete(options: argparse.Namespace) -> None:
    from deploy.complete import best_device, complete_shards

    _quiet_libraries()
    complete_shards(_experiment(options), options.shards, options.device or best_device())


def _probe(options: argparse.Namespace) -> None:
    from common.data.shard import Shard
    from deploy.complete import PROBE_PER_CLASS, best_device, make_probe

    _quiet_libraries()
    info, device = Shard.open(options.shard).info, options.device or best_device()
    per_class = options.per_class or PROBE_PER_CLASS
    made = make_probe(_experiment(options), info, options.out, per_class, device)
    print(f"{len(info.classes) * per_class} synthetic examples in {made}")


def _quality(options: argparse.Namespace) -> None:
    from deploy import quality

    _quiet_libraries()
    quality.show(quality.measure(_experiment(options), options.shards, options.scorer))


def _pretrain(options: argparse.Namespace) -> None:
    from deploy.pretrain.command import pretrain

    _quiet_libraries()
    pretrain(options.model, options.out, options.seed, options.effort)


def _quiet_libraries() -> None:
    """What transformers, diffusers and open_clip log is about their own workings."""
    logging.basicConfig(level=logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")


def _bench(options: argparse.Namespace) -> None:
    from deploy.bench import command

    logging.basicConfig(level=logging.ERROR)
    if options.suite == SPEED:
        from deploy.bench.speed.command import run

        run(options.only, options.repeats, options.json)
        return
    command.run(
        options.suite,
        _overrides(options),
        options.data,
        options.setting,
        options.seeds,
        options.workers,
        options.work,
        options.out,
    )


def _new_folder(wanted: Path | None, experiment: Experiment) -> Path:
    from server.record import free_folder

    if wanted is None:
        return free_folder(Path("runs") / experiment.name)
    if wanted.exists():
        raise ConfigError("--run-dir", [f"{wanted} exists: a run never overwrites another"])
    return wanted


def _resumed_folder(wanted: Path | None, experiment: Experiment) -> Path:
    """The folder of the run to go on with; says after which round, and which checkpoints are damaged."""
    from server.checkpoint import check_same, damaged_checkpoints, load_checkpoint
    from server.record import SUMMARY, unfinished_folder

    folder = unfinished_folder(wanted or Path("runs") / experiment.name)
    for name in damaged_checkpoints(folder):
        print(f"checkpoint {name} is damaged: going on from the one before", file=sys.stderr)
    checkpoint = load_checkpoint(folder)
    if checkpoint is not None:
        check_same(experiment, checkpoint)
    print(f"going on with {folder} after round {checkpoint.round if checkpoint else 0}")
    (folder / SUMMARY).unlink(missing_ok=True)
    return folder


def _link(options: argparse.Namespace) -> Any:
    from deploy.engines import Link

    mistakes = []
    if options.engine != "superlink":
        if options.address or options.root_certificates or options.insecure:
            mistakes.append("--address, --root-certificates and --insecure are for --engine superlink")
    elif not options.address:
        mistakes.append("--engine superlink needs --address HOST:PORT")
    elif bool(options.root_certificates) == options.insecure:
        mistakes.append("--engine superlink needs --root-certificates FILE, or --insecure for no encryption")
    elif options.root_certificates and not options.root_certificates.is_file():
        mistakes.append(f"--root-certificates: there is no file {options.root_certificates}")
    if mistakes:
        raise ConfigError("command line", mistakes)
    if options.engine != "superlink":
        return None
    return Link(options.address, str(options.root_certificates.resolve()) if options.root_certificates else "")


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _prepare_shards(experiment: Experiment, shards: Path) -> None:
    """Make the shards if they are not there, and check that those that are there can be used."""
    from common.data.make import check_made, client_name, make_shards
    from common.data.shard import Shard

    if not shards.exists():
        print(f"making shards in {shards}")
        make_shards(experiment, shards)
    check_made(experiment, shards)
    folders = [shards / client_name(index) for index in range(experiment.data.clients)]
    for folder in folders:
        Shard.open(folder)
    if experiment.completion:
        _complete_all(experiment, shards, folders)


def _complete_all(experiment: Experiment, shards: Path, folders: list[Path]) -> None:
    """Do what every site and the server would do on their own: complete the shards, and make the probe set."""
    from common.data.make import PROBE
    from common.data.shard import Shard
    from deploy.complete import PROBE_PER_CLASS, best_device, complete_shards, make_probe, needs_probe

    _quiet_libraries()
    complete_shards(experiment, folders, best_device())
    if needs_probe(experiment) and not (shards / PROBE).exists():
        print(f"making the server's probe set in {shards / PROBE}")
        make_probe(experiment, Shard.open(folders[0]).info, shards / PROBE, PROBE_PER_CLASS, best_device())


if __name__ == "__main__":
    main()
