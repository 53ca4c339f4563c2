"""A TLS handshake with the SuperLink, with advice when it fails."""

import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509

from common.errors import RunError
from deploy.hosts.address import Address

CONNECT_SECONDS = 5.0
EXPIRED, NOT_YET_VALID, OTHER_NAME = {10}, {9}, {62, 64}
"""OpenSSL's verification codes (x509_vfy.h): X509_V_ERR_CERT_HAS_EXPIRED, ..._CERT_NOT_YET_VALID, ..._HOSTNAME_MISMATCH
and ..._IP_ADDRESS_MISMATCH."""


def shake_hands(address: Address, root_certificates: Path) -> tuple[x509.Certificate, str]:
    """The certificate that proved the host's identity, and the version of TLS.

    Raises OSError: ssl.SSLCertVerificationError when the certificate is not valid for the host, another ssl.SSLError
    when the host does not use TLS.
    """
    with connect(address, root_certificates) as secured:
        encoded = secured.getpeercert(binary_form=True)
        assert encoded is not None  # the handshake has verified it
        return x509.load_der_x509_certificate(encoded), str(secured.version())


@contextmanager
def connect(address: Address, root_certificates: Path) -> Iterator[ssl.SSLSocket]:
    """A TLS connection to a host with a verified name. Raises OSError."""
    context = trusting(root_certificates)
    plain = socket.create_connection(address, timeout=CONNECT_SECONDS)
    with plain, context.wrap_socket(plain, server_hostname=address.host) as secured:
        yield secured


def trusting(root_certificates: Path) -> ssl.SSLContext:
    """A TLS context that trusts one CA only and offers HTTP/2, which gRPC requires, and HTTP/1.1.

    Raises OSError; ssl.SSLError when the file contains no certificate.
    """
    context = ssl.create_default_context(cafile=str(root_certificates))
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def described(error: OSError) -> str:
    """The error text of OpenSSL or of the operating system."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return str(error.reason or error)
    return str(error.strerror or error)


def remedy(error: OSError, address: Address) -> str:
    """Advice for an error."""
    if not isinstance(error, ssl.SSLError):
        reached = f"does the firewall let TCP {address.port} through"
        return f"is the SuperLink running, is the name right, and {reached}?"
    if not isinstance(error, ssl.SSLCertVerificationError):
        return "does the SuperLink run with TLS there, and is this its port?"
    if error.verify_code in EXPIRED:
        return (
            "the operator renews the server's certificate (docs/how-to/deploy.md, rotation); "
            "or this host's clock is wrong"
        )
    if error.verify_code in NOT_YET_VALID:
        return "set this host's clock"
    if error.verify_code in OTHER_NAME:
        return f"use a name in the certificate, or make a new one with `fedmosaic certs --server {address.host}`"
    return "another CA signed its certificate: compare ca.crt with the operator's; an attacker may be in between"


def insist(address: Address, root_certificates: Path, wait: bool) -> None:
    """Check the certificate of a host. wait: whether to ignore that a host does not answer.

    Raises RunError with advice.
    """
    try:
        shake_hands(address, root_certificates)
    except OSError as error:
        said = f"{address.host} port {address.port}: {described(error)}"
        if not wait or isinstance(error, ssl.SSLError):
            raise RunError(f"{said}; {remedy(error, address)}") from None
        print(f"{said}; the node tries again until it answers", file=sys.stderr)
