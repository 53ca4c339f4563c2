"""The files of `fedmosaic certs`.

    DIR/ca.crt               the CA certificate, which every site and every operator trusts; public
    DIR/ca.key               signs server certificates; stays with the operator, no other host needs it
    DIR/server.crt .key      the SuperLink's certificate and key; only on its host
    DIR/superexec.secret     shared by the SuperLink and its SuperExec when they are separate processes
    DIR/NAME.key NAME.pub    a site's key pair; `fedmosaic register` registers the public key at the SuperLink

Site keys have the format of Flower's SuperNode authentication: ECDSA P-384 in OpenSSH format. A site can make its own
key with `fedmosaic certs --out DIR --site NAME` and send only NAME.pub to the operator.
"""

import ipaddress
import os
import re
import secrets
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.errors import ConfigError
from common.site_name import RESERVED, is_site_name

CA_CERTIFICATE, CA_KEY = "ca.crt", "ca.key"
SERVER_CERTIFICATE, SERVER_KEY = "server.crt", "server.key"
SUPEREXEC_SECRET = "superexec.secret"
ALWAYS = ("localhost", "127.0.0.1", "::1", "superlink")
"""Names in every server certificate: the host's names for itself, and the service in the compose files."""
CA_DAYS, SERVER_DAYS = 3650, 365
BACKDATED = timedelta(hours=1)
"""Certificates are valid from a little before now, because the clocks of hosts differ."""
LABEL = "[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
HOST = re.compile(rf"(?=.{{1,253}}\Z){LABEL}(\.{LABEL})*\Z")


def make(folder: Path, servers: Sequence[str], sites: Sequence[str], days: int = SERVER_DAYS) -> list[Path]:
    """Write the certificates and keys into a folder. Returns the new files.

    Raises ConfigError, before it writes anything, with every mistake and every file that exists already.
    """
    mistakes = [*_mistakes(servers, sites, days), *_standing_in_the_way(folder, servers, sites)]
    if mistakes:
        raise ConfigError("certs", mistakes)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files: list[File] = []
    if servers:
        authority = _load_authority(folder) if (folder / CA_KEY).exists() else make_authority()
        if not (folder / CA_KEY).exists():
            files += [File(CA_KEY, _pem(authority.key), private=True), File(CA_CERTIFICATE, _public(authority))]
        server = issue(authority, [*servers, *ALWAYS], days)
        files += [File(SERVER_KEY, _pem(server.key), private=True), File(SERVER_CERTIFICATE, _public(server))]
        if not (folder / SUPEREXEC_SECRET).exists():
            files.append(File(SUPEREXEC_SECRET, secrets.token_bytes(32), private=True))
    for site in sites:
        files += _site_keys(site)
    return [file.write(folder) for file in files]


@dataclass(frozen=True)
class Certified:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class File:
    """A new file."""

    name: str
    content: bytes
    private: bool = False

    def write(self, folder: Path) -> Path:
        """Create the file with its final mode from the start. The file must not exist."""
        path = folder / self.name
        mode = 0o600 if self.private else 0o644
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "wb") as file:
            file.write(self.content)
        return path


def make_authority(days: int = CA_DAYS, now: datetime | None = None) -> Certified:
    """A new CA that can sign server certificates but no further CAs."""
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedmosaic CA")])
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    builder = _builder(name, name, key, days, now).add_extension(x509.BasicConstraints(True, 0), critical=True)
    builder = builder.add_extension(usage, critical=True)
    return Certified(builder.sign(key, hashes.SHA384()), key)


def issue(authority: Certified, names: Iterable[str], days: int, now: datetime | None = None) -> Certified:
    """A server certificate for DNS names and IP addresses. It expires no later than its CA."""
    key = ec.generate_private_key(ec.SECP384R1())
    alternative = [_general_name(name) for name in dict.fromkeys(names)]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedmosaic SuperLink")])
    last = authority.certificate.not_valid_after_utc
    signer = authority.key.public_key()
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    builder = (
        _builder(subject, authority.certificate.subject, key, days, now, last)
        .add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )
    return Certified(builder.sign(authority.key, hashes.SHA384()), key)


def others_may_read(path: Path) -> bool:
    """Whether users other than the owner have any access to a file or folder."""
    return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    days: int,
    now: datetime | None,
    last: datetime | None = None,
) -> x509.CertificateBuilder:
    now = now or datetime.now(UTC)
    end = now + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(min(end, last) if last else end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _mistakes(servers: Sequence[str], sites: Sequence[str], days: int) -> list[str]:
    mistakes = [f"--server: {name!r} is not a host name or IP address" for name in servers if not _is_host(name)]
    mistakes += [
        f"--site: {name!r} is not valid: use letters, digits, '.', '_' and '-', but not {', '.join(sorted(RESERVED))}"
        for name in sites
        if not is_site_name(name)
    ]
    mistakes += [f"--site: {name} appears twice" for name in sorted({n for n in sites if sites.count(n) > 1})]
    if not servers and not sites:
        mistakes.append("nothing to make: add --server, --site or both")
    if not 1 <= days <= CA_DAYS:
        mistakes.append(f"--days must be from 1 to {CA_DAYS}")
    return mistakes


def _standing_in_the_way(folder: Path, servers: Sequence[str], sites: Sequence[str]) -> list[str]:
    if not os.path.lexists(folder):
        return []
    if not folder.is_dir():
        return [f"--out: {folder} is not a folder"]
    mistakes = [f"--out: others can read {folder}; run: chmod 700 {folder}"] if others_may_read(folder) else []
    new = [SERVER_CERTIFICATE, SERVER_KEY] if servers else []
    new += [name for site in sites for name in _site_files(site)]
    mistakes += [f"{folder / name} exists and is never overwritten" for name in new if os.path.lexists(folder / name)]
    if servers and (folder / CA_CERTIFICATE).exists() != (folder / CA_KEY).exists():
        mistakes.append(f"a server certificate needs both {CA_CERTIFICATE} and {CA_KEY} in {folder}, or neither")
    return mistakes


def _load_authority(folder: Path) -> Certified:
    """The CA in a folder. Raises ConfigError when its files are damaged, have expired, or do not belong together."""
    try:
        certificate = x509.load_pem_x509_certificate((folder / CA_CERTIFICATE).read_bytes())
        key = serialization.load_pem_private_key((folder / CA_KEY).read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ValueError(f"{CA_KEY} is not the key of {CA_CERTIFICATE}")
        if certificate.not_valid_after_utc <= datetime.now(UTC):
            raise ValueError(f"{CA_CERTIFICATE} has expired; make a new folder")
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError("certs", [f"the CA in {folder} cannot be used: {error}"]) from None
    return Certified(certificate, key)


def _site_files(site: str) -> tuple[str, str]:
    return f"{site}.key", f"{site}.pub"


def _site_keys(site: str) -> list[File]:
    key = ec.generate_private_key(ec.SECP384R1())
    private, public = _site_files(site)
    ssh, plain = serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return [
        File(private, key.private_bytes(serialization.Encoding.PEM, ssh, plain), private=True),
        File(public, line + f" {site}\n".encode()),
    ]


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, pkcs8, plain)


def _public(certified: Certified) -> bytes:
    return certified.certificate.public_bytes(serialization.Encoding.PEM)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _is_host(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return bool(HOST.match(name)) and not re.fullmatch(r"[0-9.]+", name)
    return True
