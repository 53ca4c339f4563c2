"""`fedmosaic doctor`: checks whether this host is ready. Prints one line per check, and a remedy for each failure.

It checks only what the options name: a shard with --shard, a connection with --superlink, training with --device.
"""

import argparse
import platform
import shutil
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from http.client import HTTPException, HTTPResponse
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from cryptography import x509
from packaging.requirements import Requirement
from rich.text import Text

from common.errors import ConfigError, DeviceError, FedmosaicError, PolicyError, RunError, ShardError
from common.words.units import human
from deploy.hosts.address import Address
from deploy.hosts.handshake import CONNECT_SECONDS, connect, described, remedy, shake_hands
from deploy.hosts.start import missing_file, node_key
from deploy.terminal import terminal

EXPIRY_DAYS, DISK_LOW, DISK_FULL = 30, 10 * 10**9, 10**9
"""Days before the end of a certificate to warn; free bytes to warn at, and free bytes that are too few for a run."""
SKEW_WARNING, SKEW_REFUSED = 30.0, 300.0
"""Seconds between two clocks: the number to warn at, and the number above which Flower refuses a node's signature."""
INSTALL = "pip install -c constraints.txt . in this environment"
SERVER_PORTS = {8000: "the SuperLink's control API", 9092: "the SuperLink's port for nodes"}
NODE_PORTS = {9094: "the SuperNode"}
FAULTS = "docs/how-to/gpu.md lists the faults of a GPU and what helps"


class State(Enum):
    """Result of a check: mark and colour of its line."""

    OK = ("✓", "green")
    WARNING = ("!", "yellow")
    FAILED = ("✗", "red")


@dataclass(frozen=True)
class Result:
    """Finding of a check, and the remedy if there is one."""

    check: str
    state: State
    found: str
    remedy: str = ""


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic doctor`."""
    parser = commands.add_parser(
        "doctor",
        help="check whether this host is ready for a federation",
        epilog="example: fedmosaic doctor --superlink fl.example.org:9092 --root-certificates ca.crt"
        " --key clinic-a.key --shard /data/shard",
    )
    parser.add_argument("--superlink", metavar="HOST:PORT", help="the SuperLink's port for nodes, 9092")
    parser.add_argument("--address", metavar="HOST:PORT", help="the SuperLink's control API, 8000")
    parser.add_argument("--root-certificates", type=Path, metavar="FILE", help="ca.crt of the SuperLink")
    parser.add_argument("--key", type=Path, metavar="FILE", help="the site's private key")
    parser.add_argument("--shard", type=Path, metavar="DIR", help="the site's shard; reads every file")
    parser.add_argument("--policy", type=Path, metavar="FILE", help="the site's policy")
    parser.add_argument(
        "--device",
        nargs="?",
        const="auto",
        metavar="DEVICE",
        help="train three steps of a small model on the device: auto (if no name is given), cpu, cuda, cuda:N or mps",
    )
    parser.add_argument(
        "--with",
        type=Path,
        metavar="CONFIG",
        dest="config",
        help="with --device and --shard: train the model of this experiment with examples of the shard instead",
    )
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    if options.config and not (options.device and options.shard):
        raise ConfigError("doctor", ["--with needs --device and --shard"])
    console, failed = terminal(), 0
    for result in examine(options):
        console.print(_line(result), soft_wrap=True)
        failed += result.state is State.FAILED
    if failed:
        raise RunError(f"{failed} check{'s' * (failed != 1)} failed")


def _line(result: Result) -> Text:
    mark, colour = result.state.value
    line = Text.assemble((f"{mark} {result.check:<18}", colour), result.found)
    return line.append(f"\n    → {result.remedy}", style="bold") if result.remedy else line


def examine(options: argparse.Namespace) -> Iterator[Result]:
    """The results of the checks for the given options."""
    yield package_versions()
    yield disk(options.shard if options.shard and options.shard.is_dir() else Path.cwd())
    yield graphics_processor()
    for port, owner in (NODE_PORTS if options.superlink else SERVER_PORTS | NODE_PORTS).items():
        yield free_port(port, owner)
    if options.root_certificates:
        yield authority(options.root_certificates)
    if options.key:
        yield private_key(options.key)
    if options.policy:
        yield policy(options.policy)
        yield plugins(options.policy)
    if options.shard:
        yield shard(options.shard)
    if options.device:
        yield from device(options.device, options.policy, options.shard, options.config)
    if options.superlink:
        yield reachable("SuperLink", options.superlink, options.root_certificates)
    if options.address:
        yield reachable("control API", options.address, options.root_certificates)
        yield clock(options.address, options.root_certificates)
    elif options.root_certificates:
        yield clock_after(options.root_certificates)


def package_versions(package: str = "fedmosaic") -> Result:
    """Check the installed packages against the requirements of a package."""
    try:
        wanted = [Requirement(text) for text in requires(package) or []]
    except PackageNotFoundError:
        return Result("packages", State.FAILED, f"{package} is not installed", INSTALL)
    if wrong := [fault for wish in wanted if (fault := _version_fault(wish))]:
        return Result("packages", State.FAILED, "; ".join(wrong), INSTALL)
    said = ", ".join(f"{name} {version(name)}" for name in (package, "flwr", "torch"))
    return Result("packages", State.OK, f"{said}, Python {platform.python_version()}")


def _version_fault(wish: Requirement) -> str:
    if wish.marker and not wish.marker.evaluate({"extra": ""}):
        return ""
    try:
        found = version(wish.name)
    except PackageNotFoundError:
        return f"{wish.name} is missing"
    fits = wish.specifier.contains(found, prereleases=True)
    return "" if fits else f"{wish.name} is {found}, not {wish.specifier}"


def disk(folder: Path) -> Result:
    """Check the free space for checkpoints and caches."""
    free = shutil.disk_usage(folder).free
    said = f"{human(free)} free at {folder}"
    remedy = "make room: a run keeps two checkpoints, and a shard keeps the features of its frozen encoders"
    if free < DISK_LOW:
        return Result("disk", State.FAILED if free < DISK_FULL else State.WARNING, said, remedy)
    return Result("disk", State.OK, said)


def graphics_processor() -> Result:
    """Name the GPUs that torch finds. A site can also do without one."""
    import torch

    if not torch.cuda.is_available():
        return Result("GPU", State.OK, "torch finds no NVIDIA GPU; this host computes on the processor")
    names = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return Result("GPU", State.OK, ", ".join(f"{one.name} ({human(one.total_memory)})" for one in names))


def device(
    name: str, policy: Path | None = None, shard: Path | None = None, config: Path | None = None
) -> Iterator[Result]:
    """Check a device by three steps of training. Reports its driver, its memory and its speed.

    policy: the site's policy, which may forbid GPUs. shard, config: examples and an experiment for the training;
    without an experiment, a small model is trained.
    """
    from client.policy import read_policy
    from common.config.reading import read
    from common.hardware.computing import Hardware
    from deploy.hosts.device_trial import try_device, try_experiment

    try:
        hardware = read_policy(policy).hardware(Hardware(name, deterministic=False))
        trial = try_experiment(hardware, shard, read(config)) if shard and config else try_device(hardware)
    except PolicyError as error:
        yield Result("device", State.FAILED, str(error), "start the node with --device cpu, or change the policy")
    except DeviceError as error:
        yield Result("device", State.FAILED, str(error), FAULTS)
    except FedmosaicError as error:
        yield Result("training", State.FAILED, str(error), "fedmosaic inspect SHARD --with CONFIG shows more")
    else:
        yield Result("device", State.OK, trial.hardware())
        yield Result("training", State.OK, trial.performance())


def free_port(port: int, owner: str) -> Result:
    """Check whether a port of this host is free. The port is not free when its owner already runs."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            remedy = (
                f"no problem if {owner} is running; otherwise see `ss -ltnp sport = :{port}`, or choose another port"
            )
            return Result(f"port {port}", State.WARNING, f"{error.strerror} ({owner})", remedy)
    return Result(f"port {port}", State.OK, f"free for {owner}")


def authority(path: Path) -> Result:
    """Check that a file is the certificate of a CA, and that it is valid now."""
    check = "CA certificate"
    ask = "ask the operator of the SuperLink for its ca.crt"
    if mistakes := missing_file("--root-certificates", path):
        return Result(check, State.FAILED, mistakes[0], ask)
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        signs = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, x509.ExtensionNotFound):
        return Result(check, State.FAILED, f"{path} is not the PEM certificate of a CA", ask)
    if not signs:
        return Result(check, State.FAILED, f"{path} is the certificate of a host, not of a CA", ask)
    remedy = "the operator makes a new CA (docs/how-to/deploy.md, rotation) and sends ca.crt to every site"
    return _in_time(check, certificate, remedy)


def _in_time(check: str, certificate: x509.Certificate, remedy: str) -> Result:
    now = datetime.now(UTC)
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < first:
        return Result(check, State.FAILED, f"not valid before {first:%Y-%m-%d %H:%M} UTC", "set this host's clock")
    if now > last:
        return Result(check, State.FAILED, f"expired on {last:%Y-%m-%d}", remedy)
    days = (last - now).days
    state = State.WARNING if days < EXPIRY_DAYS else State.OK
    return Result(check, state, f"valid until {last:%Y-%m-%d} ({days} days)", remedy if state is not State.OK else "")


def private_key(path: Path) -> Result:
    """Check that only its owner can read a site's key, that Flower accepts its kind, and that it matches NAME.pub."""
    if mistakes := node_key("--key", path):
        return Result(
            "key", State.FAILED, mistakes[0], "run chmod 600, or make a key with `fedmosaic certs --site NAME`"
        )
    public = path.with_suffix(".pub")
    if public.exists() and not _belong_together(path, public):
        return Result(
            "key",
            State.FAILED,
            f"{public} belongs to another key",
            "register the public key that belongs to this private key",
        )
    return Result("key", State.OK, f"{path}, readable by its owner only")


def _belong_together(private: Path, public: Path) -> bool:
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

    try:
        return load_ssh_private_key(private.read_bytes(), None).public_key() == load_ssh_public_key(public.read_bytes())
    except ValueError:
        return False


def policy(path: Path) -> Result:
    """Check that a site's policy can be read, and list its rules."""
    from client.policy import read_policy

    try:
        said = read_policy(path).in_words()
    except PolicyError as error:
        return Result(
            "policy", State.FAILED, str(error), "docs/explanation/security.md describes the options of a policy"
        )
    return Result("policy", State.OK, f"{path}: {'; '.join(said)}")


def plugins(path: Path) -> Result:
    """Compare the plugins that a site's policy names with the installed ones, and name damaged ones."""
    from client.policy import read_policy
    from common.config.plugins import normalised, pins, plugin, unusable

    try:
        named = {normalised(pinned) for pinned in read_policy(path).plugins}
    except PolicyError:
        return Result("plugins", State.WARNING, "the policy cannot be read", "see the line above")
    broken = dict(unusable())
    for pin in named & set(pins()):
        try:
            plugin(pin)
        except ConfigError as error:
            broken[pin] = "; ".join(error.mistakes)
    if absent := sorted(named - set(pins())):
        remedy = "install the wheel that the server uses, or remove the line from the policy"
        return Result("plugins", State.WARNING, f"not installed: {', '.join(absent)}", remedy)
    if broken:
        found = "; ".join(f"{name}: {why}" for name, why in sorted(broken.items()))
        return Result("plugins", State.WARNING, f"unusable: {found}", "install these packages again, or remove them")
    refused = sorted(set(pins()) - named)
    said = f"allowed: {', '.join(sorted(named)) or 'none'}"
    return Result("plugins", State.OK, said + (f"; installed but not allowed: {', '.join(refused)}" if refused else ""))


def shard(folder: Path) -> Result:
    """Check that a shard can be opened, and count the files that cannot be decoded."""
    from common.data.shard import Shard

    try:
        opened = Shard.open(folder)
    except ShardError as error:
        return Result("shard", State.FAILED, str(error), "docs/how-to/data-sets.md describes the format of a shard")
    files = [(modality, path) for record in opened.records for modality, path in record.files.items()]
    broken = Counter(modality for modality, path in files if not _readable(path))
    said = f"{opened.info.site}: {len(opened.records)} examples, {len(files)} files"
    if not broken:
        return Result("shard", State.OK, said)
    counts = ", ".join(f"{count} {modality}" for modality, count in sorted(broken.items()))
    worthless = broken.total() == len(files) and not any(record.texts for record in opened.records)
    remedy = "these values count as missing; check the permissions of the files, and replace damaged files"
    return Result("shard", State.FAILED if worthless else State.WARNING, f"{said}; broken files: {counts}", remedy)


def _readable(path: Path) -> bool:
    from common.media import values as media

    try:
        media.read(path)
    except ValueError:
        return False
    return True


def reachable(check: str, address: str, root_certificates: Path | None) -> Result:
    """Check that a server answers at an address and, with a CA, that its certificate is for this address."""
    try:
        dialled = Address.parse(address)
    except ValueError as error:
        return Result(check, State.FAILED, str(error), "correct the address")
    try:
        if root_certificates is None:
            socket.create_connection(dialled, timeout=CONNECT_SECONDS).close()
            return Result(check, State.WARNING, f"{address} answers", "give --root-certificates to check its identity")
        certificate, protocol = shake_hands(dialled, root_certificates)
    except OSError as error:
        return Result(check, State.FAILED, f"{address}: {described(error)}", remedy(error, dialled))
    time = _in_time(check, certificate, "the operator renews it (docs/how-to/deploy.md, rotation)")
    return Result(check, time.state, f"{address} proved its name, {protocol}; {time.found}", time.remedy)


def clock(address: str, root_certificates: Path | None) -> Result:
    """Compare this host's clock with the date of the SuperLink's answer (whole seconds)."""
    try:
        away = abs((_date_at(Address.parse(address), root_certificates) - datetime.now(UTC)).total_seconds())
    except (OSError, ValueError, HTTPException) as error:
        return Result("clock", State.WARNING, f"the SuperLink's time is unknown: {error}", "see the lines above")
    said = f"within {max(away, 1):.0f} s of the SuperLink's"
    if away < SKEW_WARNING:
        return Result("clock", State.OK, said)
    state = State.FAILED if away >= SKEW_REFUSED else State.WARNING
    return Result("clock", state, f"{away:.0f} s away from the SuperLink's", "timedatectl set-ntp true, on both hosts")


def _date_at(address: Address, root_certificates: Path | None) -> datetime:
    if root_certificates is None:
        with socket.create_connection(address, timeout=CONNECT_SECONDS) as plain:
            return _date(plain, address.host)
    with connect(address, root_certificates) as secured:
        return _date(secured, address.host)


def _date(connection: socket.socket, host: str) -> datetime:
    named = f"[{host}]" if ":" in host else host
    connection.sendall(f"HEAD /health HTTP/1.1\r\nHost: {named}\r\nConnection: close\r\n\r\n".encode())
    with HTTPResponse(connection, method="HEAD") as answer:
        answer.begin()
        return parsedate_to_datetime(answer.headers["Date"] or "")


def clock_after(root_certificates: Path) -> Result:
    """Check that this host's clock is after the creation of the CA. A closer check needs an answer of the SuperLink."""
    try:
        made = x509.load_pem_x509_certificate(root_certificates.read_bytes()).not_valid_before_utc
    except (OSError, ValueError):
        return Result("clock", State.WARNING, "there is no time to compare with", "give --address or a valid ca.crt")
    now = datetime.now(UTC)
    said = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    if now < made:
        return Result("clock", State.FAILED, f"{said}, before the CA was created", "set this host's clock")
    return Result("clock", State.OK, f"{said}, after the CA was created")
