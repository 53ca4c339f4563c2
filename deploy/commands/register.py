"""`fedmosaic register`: register the keys of the sites that may connect to a SuperLink."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from common.site_name import is_site_name
from deploy.hosts.address import Address
from deploy.hosts.environment import SETTINGS, surroundings
from deploy.hosts.handshake import insist
from deploy.hosts.start import (
    add_operator_token,
    missing_file,
    operator_token,
    operator_token_mistakes,
    public_key,
)


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic register`."""
    parser = commands.add_parser(
        "register",
        help="register the keys of the sites that may connect to a SuperLink",
        description="Register the public keys of sites. The name of the file is the name of the site. A key that is "
        "registered already does not change. A key that was unregistered cannot be registered again: the site needs "
        "a new key.",
        epilog="example: fedmosaic register certs/*.pub --address 127.0.0.1:8000 --root-certificates certs/ca.crt",
    )
    parser.add_argument("keys", type=Path, nargs="+", metavar="SITE.pub")
    parser.add_argument(
        "--address", required=True, metavar="HOST:PORT", help="address of the SuperLink's control API (port 8000)"
    )
    parser.add_argument(
        "--root-certificates", type=Path, required=True, metavar="FILE", help="CA certificate of the SuperLink"
    )
    add_operator_token(parser)
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    from deploy.engines.launch import FlowerCommand, Link

    if mistakes := _mistakes(options):
        raise ConfigError("register", mistakes)
    insist(Address.parse(options.address), options.root_certificates, wait=False)
    with tempfile.TemporaryDirectory(prefix="fedmosaic-") as home:
        link = Link(options.address, str(options.root_certificates.resolve()), operator_token(options))
        flower = FlowerCommand(Path(home), link, {**surroundings(), **SETTINGS})
        for key in options.keys:
            is_new = flower.register(key.resolve(), key.stem)
            print(f"{key.stem}: registered" if is_new else f"{key.stem}: this key is registered already")


def _mistakes(options: argparse.Namespace) -> list[str]:
    mistakes = missing_file("--root-certificates", options.root_certificates)
    mistakes += operator_token_mistakes(options)
    try:
        Address.parse(options.address)
    except ValueError as error:
        mistakes.append(f"--address: {error}")
    names = [key.stem for key in options.keys]
    mistakes += [f"{name}: two files have this name" for name in sorted({n for n in names if names.count(n) > 1})]
    for key in options.keys:
        mistakes += public_key(key)
        if not is_site_name(key.stem):
            mistakes.append(f"{key}: the file's name without .pub is the site's name, and {key.stem!r} is not valid")
    return mistakes
