"""`fedmosaic superlink`: start Flower's SuperLink with TLS, node keys and a database.

    :9092  gRPC, for the sites' SuperNodes; a node needs a registered key
    :8000  HTTPS, for operators (`fedmosaic run`, `fedmosaic register`, `fedmosaic flwr`), who need the token in
           STATE/operator.token; open to this host only, unless --host sets another interface

STATE contains state.db (registered nodes, runs, messages), flower/ (apps), runs/ (results, checkpoints), and two
secrets.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from deploy.hosts.address import Address
from deploy.hosts.certs import CA_CERTIFICATE, SERVER_CERTIFICATE, SERVER_KEY, SUPEREXEC_SECRET
from deploy.hosts.control import TOKEN_FILE, VARIABLE, make_token
from deploy.hosts.start import become, environment, missing_file, private_file
from deploy.hosts.superexec import isolated, start

CONTROL_PORT, FLEET_PORT = 8000, 9092


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic superlink`."""
    parser = commands.add_parser(
        "superlink",
        help="start the SuperLink that sites connect to",
        epilog="example: fedmosaic superlink --certs certs --state /var/lib/fedmosaic",
    )
    parser.add_argument("--certs", type=Path, metavar="DIR", help="folder with ca.crt, server.crt and server.key")
    parser.add_argument(
        "--state", type=Path, required=True, metavar="DIR", help="folder for the database, apps and results"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="interface of the control API (default: 127.0.0.1)",
    )
    parser.add_argument("--port", type=int, default=CONTROL_PORT, metavar="N", help="port of the control API")
    parser.add_argument(
        "--fleet-address",
        default=f"0.0.0.0:{FLEET_PORT}",
        metavar="ADDRESS:PORT",
        help=f"address for the nodes (default: 0.0.0.0:{FLEET_PORT}; [::]:{FLEET_PORT} for IPv4 and IPv6)",
    )
    parser.add_argument("--insecure", action="store_true", help="no TLS, no node keys, no operator's token: for trials")
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    from deploy.engines.launch import executable

    if mistakes := _mistakes(options):
        raise ConfigError("superlink", mistakes)
    state: Path = options.state.resolve()
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    env = {"FLWR_HOME": str(state / "flower"), **environment([])}
    closed, superexec_options = isolated(
        f"{_reached(options.host)}:{options.port}", state / SUPEREXEC_SECRET, _trust(options)
    )
    os.environ.update(env)
    start(superexec_options, state)
    if options.insecure:
        become([executable("flower-superlink"), *arguments(options), *closed], env, state)
    make_token(state / TOKEN_FILE)
    command = [sys.executable, "-P", "-m", "deploy.hosts.control", "superlink", *arguments(options), *closed]
    become(command, {**env, VARIABLE: str(state / TOKEN_FILE)}, state)


def _reached(host: str) -> str:
    """The address at which this host itself reaches an interface."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]", "[::]": "[::1]"}.get(host, host)


def _trust(options: argparse.Namespace) -> list[str]:
    if options.insecure:
        return ["--insecure"]
    return ["--root-certificates", str(options.certs.resolve() / CA_CERTIFICATE)]


def arguments(options: argparse.Namespace) -> list[str]:
    """The command line arguments of flower-superlink."""
    told = ["--host", options.host, "--port", str(options.port), "--fleet-api-address", options.fleet_address]
    told += ["--database", str(options.state.resolve() / "state.db"), "--disable-runtime-dependency-installation"]
    if options.insecure:
        return ["--insecure", *told]
    certs: Path = options.certs.resolve()
    told += ["--ssl-ca-certfile", str(certs / CA_CERTIFICATE), "--ssl-certfile", str(certs / SERVER_CERTIFICATE)]
    return [*told, "--ssl-keyfile", str(certs / SERVER_KEY), "--enable-supernode-auth"]


def _mistakes(options: argparse.Namespace) -> list[str]:
    mistakes = []
    if options.insecure == bool(options.certs):
        mistakes.append("give --certs DIR (see `fedmosaic certs`), or --insecure for no encryption and no node keys")
    elif options.certs:
        for name in (CA_CERTIFICATE, SERVER_CERTIFICATE):
            mistakes += missing_file("--certs", options.certs / name)
        mistakes += private_file("--certs", options.certs / SERVER_KEY)
    if not 0 < options.port < 65536:
        mistakes.append(f"--port: {options.port} is not from 1 to 65535")
    try:
        Address.parse(options.fleet_address)
    except ValueError as error:
        mistakes.append(f"--fleet-address: {error}")
    if options.state.exists() and not options.state.is_dir():
        mistakes.append(f"--state: {options.state} is not a folder")
    return mistakes
