"""`fedmosaic certs`: the certificates of a SuperLink and the keys of its sites."""

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic certs`."""
    parser = commands.add_parser(
        "certs",
        help="make the certificates of a SuperLink and the keys of its sites",
        description="Make a CA, the certificate of the SuperLink's host and a key pair a site. Nothing is overwritten: "
        "on a folder that exists, --site adds sites, and --server makes a server certificate if there is none. "
        "ca.key signs new server certificates and nothing else; keep it away from the server.",
        epilog="example: fedmosaic certs --out certs --server fl.example.org --server 192.0.2.7 --site clinic-a",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a folder only you can read")
    parser.add_argument(
        "--server", nargs="+", action="extend", default=[], metavar="NAME_OR_IP", help="what the nodes and you dial"
    )
    parser.add_argument("--site", nargs="+", action="extend", default=[], metavar="NAME", help="one key pair a site")
    parser.add_argument(
        "--days",
        type=int,
        default=365,
        metavar="N",
        help="how long the server's certificate holds (default: 365); the CA's holds 3650",
    )
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    from deploy.hosts.certs import CA_KEY, make

    for path in make(options.out, options.server, options.site, options.days):
        print(path)
    if options.server:
        print(f"keep {options.out / CA_KEY} here: no other host needs it")
