"""Parts of `fedmosaic superlink` and `fedmosaic node`: checking options and files, becoming a Flower command."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from deploy.hosts.certs import others_may_read
from deploy.hosts.control import TOKEN_FILE, VARIABLE
from deploy.hosts.environment import SETTINGS, surroundings

NIST_CURVES = {"secp256r1", "secp384r1", "secp521r1"}
"""The curves that Flower accepts for a node's key."""


def environment(first_on_path: Sequence[Path]) -> dict[str, str]:
    """The environment of `surroundings`, with Flower's settings."""
    return {**surroundings(first_on_path), **SETTINGS}


def become(command: Sequence[str], env: Mapping[str, str], folder: Path | None = None) -> NoReturn:
    """Replace this process by a command, so that signals reach the command and its exit status is ours."""
    if folder:
        os.chdir(folder)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], list(command), dict(env))


def missing_file(option: str, path: Path) -> list[str]:
    """The mistake of an option if its file does not exist or cannot be read."""
    if not path.is_file():
        return [f"{option}: there is no file {path}"]
    return [] if os.access(path, os.R_OK) else [f"{option}: this user cannot read {path}"]


def private_file(option: str, path: Path) -> list[str]:
    """The mistake of an option if its secret is absent, unreadable, or open to other users."""
    if mistakes := missing_file(option, path):
        return mistakes
    return [f"{option}: others can read {path}; run: chmod 600 {path}"] if others_may_read(path) else []


def node_key(option: str, path: Path) -> list[str]:
    """The mistake of an option if its file is not a usable private key of a node."""
    if mistakes := private_file(option, path):
        return mistakes
    try:
        key = load_ssh_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return [f"{option}: {path} is not a private key in OpenSSH format without a passphrase; see `fedmosaic certs`"]
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in NIST_CURVES:
        return [f"{option}: {path} is not an ECDSA key of a NIST curve; see `fedmosaic certs`"]
    return []


def add_operator_token(parser: argparse._ActionsContainer) -> None:
    """Add --operator-token."""
    parser.add_argument(
        "--operator-token",
        type=Path,
        metavar="FILE",
        help=f"{TOKEN_FILE} from the SuperLink's --state folder (default: the path in ${VARIABLE})",
    )


def operator_token(options: argparse.Namespace) -> str:
    """The path of the token's file, or "" for the path in the environment."""
    return str(options.operator_token.resolve()) if options.operator_token else ""


def operator_token_mistakes(options: argparse.Namespace) -> list[str]:
    """The mistakes of --operator-token."""
    return private_file("--operator-token", options.operator_token) if options.operator_token else []


def public_key(path: Path) -> list[str]:
    """The mistake of a file if it is not a usable public key of a node."""
    if mistakes := missing_file("key", path):
        return mistakes
    try:
        key = load_ssh_public_key(path.read_bytes())
    except (ValueError, UnsupportedAlgorithm):
        return [f"{path} is not a public key in OpenSSH format; `fedmosaic certs` writes it to SITE.pub"]
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in NIST_CURVES:
        return [f"{path} is not an ECDSA key of a NIST curve; see `fedmosaic certs`"]
    return []
