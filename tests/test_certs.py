"""Certificates and keys, judged by OpenSSL (through `ssl`) and by what Flower itself reads."""

import os
import ssl
import stat
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from test_cli import call

from common.errors import ConfigError
from deploy.hosts.certs import CA_DAYS, File, issue, make, make_authority


def write_server(folder: Path, now: datetime | None = None) -> Path:
    """The server's files, for localhost and ten days, made at another time by a CA of its own."""
    authority = make_authority(now=now)
    server = issue(authority, ["localhost"], 10, now=now)
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    folder.mkdir()
    (folder / "ca.crt").write_bytes(authority.certificate.public_bytes(pem))
    (folder / "server.crt").write_bytes(server.certificate.public_bytes(pem))
    (folder / "server.key").write_bytes(server.key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return folder


def handshake(server: Path, trusted: Path, name: str) -> None:
    """A TLS handshake in this process. Raises ssl.SSLCertVerificationError as the client would."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server / "server.crt", server / "server.key")
    into_server, from_server, into_client, from_client = (ssl.MemoryBIO() for _ in range(4))
    serving = context.wrap_bio(into_server, from_server, server_side=True)
    client_context = ssl.create_default_context(cafile=str(trusted / "ca.crt"))
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    dialling = client_context.wrap_bio(into_client, from_client, server_hostname=name)
    for _ in range(4):
        for side in (dialling, serving):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
            into_server.write(from_client.read())
            into_client.write(from_server.read())
    assert dialling.version() == "TLSv1.3"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    make(tmp_path / "certs", ["fl.example.org", "192.0.2.7", "2001:db8::7"], ["clinic-a", "clinic-b"])
    return tmp_path / "certs"


@pytest.mark.parametrize(
    "name", ["fl.example.org", "192.0.2.7", "2001:db8::7", "localhost", "127.0.0.1", "::1", "superlink"]
)
def test_a_client_that_trusts_the_ca_accepts_the_server_under_each_of_its_names(name: str, made: Path) -> None:
    handshake(made, made, name)


@pytest.mark.parametrize("name", ["example.org", "192.0.2.8", "evil.fl.example.org"])
def test_other_names_are_refused(name: str, made: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match=r"mismatch|not valid for"):
        handshake(made, made, name)


def test_another_ca_and_an_expired_certificate_are_refused(made: Path, tmp_path: Path) -> None:
    make(tmp_path / "other", ["fl.example.org"], [])
    with pytest.raises(ssl.SSLCertVerificationError, match=r"unable to get local issuer|self-signed|signature failure"):
        handshake(made, tmp_path / "other", "fl.example.org")
    expired = write_server(tmp_path / "old", now=datetime.now(UTC) - timedelta(days=11))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        handshake(expired, expired, "localhost")


def test_private_files_are_private_from_their_creation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_creation = {}
    real = os.open

    def watched(path: Path, flags: int, mode: int = 0o777) -> int:
        descriptor = real(path, flags, mode)
        found = os.fstat(descriptor)
        at_creation[Path(path).name] = (stat.S_IMODE(found.st_mode), found.st_size)
        assert flags & os.O_EXCL
        return descriptor

    monkeypatch.setattr(os, "open", watched)
    before = os.umask(0)
    try:
        make(tmp_path / "certs", ["h"], ["a"])
    finally:
        os.umask(before)
    private = {"ca.key", "server.key", "superexec.secret", "a.key"}
    assert at_creation == dict.fromkeys(private, (384, 0)) | dict.fromkeys(("ca.crt", "server.crt", "a.pub"), (420, 0))
    assert stat.S_IMODE((tmp_path / "certs").stat().st_mode) == 0o700
    assert {path.name for path in (tmp_path / "certs").iterdir() if path.stat().st_mode & 0o077 == 0} == private


def test_the_ca_signs_hosts_only_and_a_host_signs_nothing(made: Path) -> None:
    authority = x509.load_pem_x509_certificate((made / "ca.crt").read_bytes())
    server = x509.load_pem_x509_certificate((made / "server.crt").read_bytes())
    server.verify_directly_issued_by(authority)
    limits = authority.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (limits.ca, limits.path_length) == (True, 0)
    assert not server.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    purposes = server.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert 364 <= (server.not_valid_after_utc - datetime.now(UTC)).days <= 365


def test_flower_reads_the_sites_keys(made: Path) -> None:
    from flwr.cli.supernode.register import try_load_public_key

    key = serialization.load_ssh_private_key((made / "clinic-a.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp384r1"
    der = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    read = try_load_public_key(made / "clinic-a.pub")
    assert serialization.load_pem_public_key(read).public_bytes(*der) == key.public_key().public_bytes(*der)
    assert try_load_public_key(made / "clinic-b.pub") != read


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_nothing_is_overwritten_and_every_reason_is_said_at_once(made: Path) -> None:
    before = contents(made)
    with pytest.raises(ConfigError) as caught:
        make(made, ["fl.example.org", "no_host"], ["clinic-a", "new", "../up", "ca"], days=0)
    assert contents(made) == before
    for expected in (
        "'no_host' is not a host name", "'../up' is not valid", "'ca' is not valid", "--days must be",
        "server.crt exists", "server.key exists", "clinic-a.key exists", "clinic-a.pub exists",
    ):  # fmt: skip
        assert expected in str(caught.value)


def test_sites_are_added_later_and_leave_the_rest_alone(made: Path) -> None:
    before = contents(made)
    assert [path.name for path in make(made, [], ["clinic-c"])] == ["clinic-c.key", "clinic-c.pub"]
    after = contents(made)
    assert {name: after[name] for name in before} == before
    (made / "server.crt").unlink()
    (made / "server.key").unlink()
    make(made, ["new.example.org"], [])  # a new certificate of the same CA
    handshake(made, made, "new.example.org")
    assert contents(made)["ca.crt"] == before["ca.crt"]


def test_a_site_makes_its_own_key(tmp_path: Path) -> None:
    make(tmp_path / "mine", [], ["clinic-d"])
    assert sorted(contents(tmp_path / "mine")) == ["clinic-d.key", "clinic-d.pub"]


def test_a_dangling_link_and_an_open_folder_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    folder.mkdir(mode=0o700)
    (folder / "a.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"a\.key exists"):
        make(folder, [], ["a"])
    with pytest.raises(FileExistsError):
        File("a.key", b"secret", private=True).write(folder)
    assert not (tmp_path / "elsewhere").exists()
    folder.chmod(0o750)
    with pytest.raises(ConfigError, match="chmod 700"):
        make(folder, [], ["b"])


def test_a_ca_that_cannot_sign_is_a_clear_mistake(made: Path, tmp_path: Path) -> None:
    make(tmp_path / "other", ["h"], [])
    for name in ("server.crt", "server.key"):
        (made / name).unlink()
    (made / "ca.key").write_bytes((tmp_path / "other" / "ca.key").read_bytes())
    with pytest.raises(ConfigError, match=r"ca\.key is not the key of ca\.crt"):
        make(made, ["h"], [])
    (made / "ca.key").write_text("nothing")
    with pytest.raises(ConfigError, match="cannot be used"):
        make(made, ["h"], [])
    (made / "ca.key").unlink()
    with pytest.raises(ConfigError, match=r"needs both ca\.crt and ca\.key"):
        make(made, ["h"], [])


def test_a_certificate_does_not_outlive_its_ca() -> None:
    authority = make_authority(days=30)
    assert issue(authority, ["h"], CA_DAYS).certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "certs"
    assert call("certs", "--out", out, "--server", "a.test", "10.0.0.1", "--site", "x", "--site", "y") == 0
    said = capsys.readouterr().out
    assert "x.key" in said and "y.pub" in said and "no other host needs it" in said
    assert call("certs", "--out", out, "--site", "x") == 2
    assert "x.key exists and is never overwritten" in capsys.readouterr().err
    assert call("certs", "--out", tmp_path / "nothing") == 2
    assert not (tmp_path / "nothing").exists()
