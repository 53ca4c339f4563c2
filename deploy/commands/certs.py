"""`fedmosaic certs`: make the certificates of a SuperLink and the keys of its sites."""

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic certs`."""
    parser = commands.add_parser(
        "certs",
        help="make the certificates of a SuperLink and the keys of its sites",
        description="Make a CA, a certificate for the SuperLink's host and one key pair per site. The command never "
        "overwrites a file. If the folder exists, --site adds sites, and --server makes a server certificate if there "
        "is none. ca.key only signs new server certificates; keep it away from the server.",
        epilog="example: fedmosaic certs --out certs --server fl.example.org --server 192.0.2.7 --site clinic-a",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the files, which only you can read"
    )
    parser.add_argument(
        "--server",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME_OR_IP",
        help="names and IP addresses of the SuperLink's host",
    )
    parser.add_argument(
        "--site", nargs="+", action="extend", default=[], metavar="NAME", help="make one key pair per site"
    )
    parser.add_argument(
        "--days",
        type=int,
        default=365,
        metavar="N",
        help="days until the server's certificate expires (default: 365); the CA's certificate expires after 3650",
    )
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    from deploy.hosts.certs import CA_KEY, make

    for path in make(options.out, options.server, options.site, options.days):
        print(path)
    if options.server:
        print(f"Keep {options.out / CA_KEY} on this host: no other host needs it.")
