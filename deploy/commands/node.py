"""`fedmosaic node`: start Flower's SuperNode with a site's shard, name, policy and key.

The node connects outwards to the SuperLink's gRPC port and listens on the loopback interface only. It ends when the
SuperLink refuses it: the key is not registered, or a node with the same key was killed less than a minute ago (Flower's
exit code 305). The second reason passes, so the supervisor of the process should start it again (see
docs/how-to/deploy.md).
"""

import argparse
import os
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from deploy.commands.shared.device import add_device
from deploy.hosts.address import Address
from deploy.hosts.explain import FLOWER_LOG
from deploy.hosts.handshake import insist
from deploy.hosts.start import become, environment, missing_file, node_key
from deploy.hosts.superexec import VARIABLE, isolated

RUNTIME_PORT = 9094


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic node`."""
    parser = commands.add_parser(
        "node",
        help="connect a site's shard to a SuperLink",
        epilog="example: fedmosaic node --superlink fl.example.org:9092 --shard /data/shard --site clinic-a"
        " --root-certificates ca.crt --key clinic-a.key",
    )
    parser.add_argument("--superlink", required=True, metavar="HOST:PORT", help="the SuperLink's port for nodes, 9092")
    parser.add_argument("--shard", type=Path, required=True, metavar="DIR", help="the site's shard")
    parser.add_argument("--site", metavar="NAME", help="the site's name (default: the shard's own)")
    parser.add_argument(
        "--policy", type=Path, metavar="FILE", help="the site's policy file, which limits the data that leave"
    )
    add_device(parser, default="auto", what="that the site trains on")
    parser.add_argument(
        "--threads",
        type=int,
        default=0,
        metavar="N",
        help="threads of the training on the processor (default: one per core); divide the cores among the nodes of a "
        "host",
    )
    parser.add_argument("--root-certificates", type=Path, metavar="FILE", help="ca.crt of the SuperLink")
    parser.add_argument("--key", type=Path, metavar="FILE", help="the site's private key; its public key is registered")
    parser.add_argument("--insecure", action="store_true", help="no TLS and no key: for trials on one machine")
    parser.add_argument(
        "--port",
        type=int,
        default=RUNTIME_PORT,
        metavar="N",
        help=f"port on the loopback interface; each node of a host needs its own (default: {RUNTIME_PORT})",
    )
    parser.add_argument(
        "--flower-log",
        type=Path,
        metavar="FILE",
        help="file for Flower's own log lines (default: in this user's folder for temporary files; - for none)",
    )
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    from deploy.hosts.clientapp import SUPERNODE, commands_folder

    if mistakes := _mistakes(options):
        raise ConfigError("node", mistakes)
    _say_policy(options.policy)
    _say_device(options)
    if not options.insecure:
        insist(Address.parse(options.superlink), options.root_certificates, wait=True)
    commands = commands_folder()
    log = _flowers_log(options)
    print(
        f"connecting {options.shard} to {options.superlink}; Flower's own log: {log or 'among these lines'}", flush=True
    )
    closed, superexec_options = isolated(f"127.0.0.1:{options.port}", _secret(options.port), ["--insecure"])
    own = {FLOWER_LOG: str(log or "-"), VARIABLE: "\n".join(superexec_options)}
    become([str(commands / SUPERNODE), *arguments(options), *closed], {**environment([commands]), **own})


def _secret(port: int) -> Path:
    """The file with the secret that SuperNode and SuperExec share.

    Raises ConfigError when there is no folder that only this user can read.
    """
    from client.resident.connection import NoWorkerError, private_folder

    try:
        return private_folder() / f"superexec-{port}.secret"
    except NoWorkerError as error:
        raise ConfigError("node", [f"there is no folder that only this user can read: {error}"]) from None


def _flowers_log(options: argparse.Namespace) -> Path | None:
    """The file for Flower's own log lines: the file of --flower-log, else a file in this user's folder for a session.

    None when --flower-log is "-", or when there is no such folder.
    """
    from client.resident.connection import NoWorkerError, private_folder

    if options.flower_log is not None:
        return None if str(options.flower_log) == "-" else Path(options.flower_log).resolve()
    try:
        return private_folder() / f"flower-{options.port}.log"
    except NoWorkerError:
        return None


def _say_policy(file: Path | None) -> None:
    """Print the policy. Raises PolicyError when it cannot be read, because the node would then refuse every run."""
    from client.policy import read_policy

    print(
        f"policy ({file or 'the defaults, without --policy'}):", *read_policy(file).in_words(), sep="\n  - ", flush=True
    )


def _say_device(options: argparse.Namespace) -> None:
    """Print the site's device. Raises PolicyError when the policy forbids it, DeviceError when it is unusable."""
    from client.policy import read_policy
    from common.hardware.computing import Hardware, cores
    from common.hardware.device import described, find_device

    hardware = read_policy(options.policy).hardware(Hardware(options.device, options.threads))
    device = find_device(hardware.device)
    threads = f", {hardware.threads or cores()} threads" if device.type == "cpu" else ""
    print(f"device: {described(device)}{threads}", flush=True)


def arguments(options: argparse.Namespace) -> list[str]:
    """The command line arguments of flower-supernode."""
    told = ["--superlink", options.superlink, "--host", "127.0.0.1", "--port", str(options.port)]
    told += ["--node-config", node_config(options)]
    if options.insecure:
        return ["--insecure", *told]
    told += ["--root-certificates", str(options.root_certificates.resolve())]
    return [*told, "--auth-supernode-private-key", str(options.key.resolve())]


def node_config(options: argparse.Namespace) -> str:
    """The node's settings for the ClientApp, in Flower's notation."""
    return " ".join(f"{key}='{value}'" for key, value in _settings(options).items())


def _settings(options: argparse.Namespace) -> dict[str, str]:
    settings = {"shard": str(options.shard.resolve()), "device": options.device}
    if options.threads:
        settings["threads"] = str(options.threads)
    if options.site is not None:
        settings["site"] = options.site
    if options.policy is not None:
        settings["policy"] = str(options.policy.resolve())
    return settings


def _mistakes(options: argparse.Namespace) -> list[str]:
    mistakes = _shard_mistakes(options.shard)
    try:
        Address.parse(options.superlink)
    except ValueError as error:
        mistakes.append(f"--superlink: {error}")
    if not 0 < options.port < 65536:
        mistakes.append(f"--port: {options.port} is not from 1 to 65535")
    if options.threads < 0:
        mistakes.append(f"--threads: {options.threads} is negative")
    if options.policy:
        mistakes += missing_file("--policy", options.policy)
    if options.flower_log and not options.flower_log.resolve().parent.is_dir():
        mistakes.append(f"--flower-log: there is no folder {options.flower_log.resolve().parent}")
    mistakes += [  # Flower's notation cannot express these
        f"--{key}: {value!r} contains a quotation mark or a control character"
        for key, value in _settings(options).items()
        if "'" in value or not value.isprintable()
    ]
    return mistakes + _trust_mistakes(options)


def _shard_mistakes(folder: Path) -> list[str]:
    if not folder.is_dir():
        return [f"--shard: there is no folder {folder}"]
    names = ("shard.json", "metadata.jsonl")
    unreadable = [name for name in names if not os.access(folder / name, os.R_OK)]
    return [f"--shard: {folder / name} does not exist, or this user cannot read it" for name in unreadable]


def _trust_mistakes(options: argparse.Namespace) -> list[str]:
    if options.insecure:
        given = [name for name in ("root_certificates", "key") if getattr(options, name)]
        return [f"--insecure excludes --{name.replace('_', '-')}" for name in given]
    mistakes = []
    if not options.root_certificates:
        mistakes.append("--root-certificates FILE is needed (the SuperLink's ca.crt), or --insecure for no encryption")
    else:
        mistakes += missing_file("--root-certificates", options.root_certificates)
    if not options.key:
        mistakes.append("--key FILE is needed (the site's private key, see `fedmosaic certs`), or --insecure")
    else:
        mistakes += node_key("--key", options.key)
    return mistakes
