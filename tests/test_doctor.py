"""`fedmosaic doctor`: each check against something that is right and something that is wrong."""

import argparse
import re
import shutil
import socket
import ssl
import threading
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch
import yaml
from conftest import RAW
from test_certs import write_server
from test_cli import call

from client.methods.fedcmi import FedCMI
from common.hardware import computing, facts
from deploy.cli import parser
from deploy.commands import doctor
from deploy.commands.doctor import State
from deploy.engines.processes import free_ports
from deploy.hosts.certs import make
from fedmosaic.testing.pretend_device import pretended


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    make(tmp_path / "certs", ["localhost"], ["clinic-a", "clinic-b"])
    return tmp_path / "certs"


@contextmanager
def serving(folder: Path, clock: timedelta = timedelta()) -> Iterator[str]:
    """A TLS server with a folder's certificate that answers with its own idea of the time; yields its address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_answer, args=(listening, context, clock))
        thread.start()
        try:
            yield f"localhost:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def _answer(listening: socket.socket, context: ssl.SSLContext, clock: timedelta) -> None:
    while True:
        try:
            plain, _ = listening.accept()
        except OSError:
            return
        try:
            with plain, context.wrap_socket(plain, server_side=True) as secured:
                if secured.recv(1000):
                    date = f"{datetime.now(UTC) + clock:%a, %d %b %Y %H:%M:%S} GMT"
                    secured.sendall(f"HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n".encode())
        except OSError:
            continue


def test_a_superlink_that_proves_its_name(certs: Path) -> None:
    with serving(certs) as address:
        result = doctor.reachable("SuperLink", address, certs / "ca.crt")
        assert (result.state, result.remedy) == (State.OK, "")
        assert "TLSv1.3" in result.found and "(364 days)" in result.found
        unchecked = doctor.reachable("SuperLink", address, None)
        assert (unchecked.state, "answers" in unchecked.found) == (State.WARNING, True)


def test_a_superlink_of_another_ca_name_or_time(certs: Path, tmp_path: Path) -> None:
    make(tmp_path / "other", ["localhost"], [])
    with serving(certs) as address:
        foreign = doctor.reachable("SuperLink", address, tmp_path / "other" / "ca.crt")
        assert foreign.state is State.FAILED
        assert "another CA signed" in foreign.remedy
    elsewhere = write_server(tmp_path / "elsewhere")  # for localhost only
    with serving(elsewhere) as address:
        renamed = doctor.reachable("SuperLink", address.replace("localhost", "127.0.0.1"), elsewhere / "ca.crt")
        assert (renamed.state, "certs --server 127.0.0.1" in renamed.remedy) == (State.FAILED, True)
    for days, expected in ((-11, "renews the server's certificate"), (5, "set this host's clock")):
        shifted = write_server(tmp_path / f"at{days}", now=datetime.now(UTC) + timedelta(days=days))
        with serving(shifted) as address:
            result = doctor.reachable("SuperLink", address, shifted / "ca.crt")
            assert result.state is State.FAILED
            assert expected in result.remedy
    with serving(write_server(tmp_path / "soon", now=datetime.now(UTC) - timedelta(days=3))) as address:
        assert doctor.reachable("SuperLink", address, tmp_path / "soon" / "ca.crt").state is State.WARNING


def test_a_superlink_that_is_not_there_or_speaks_no_tls(certs: Path) -> None:
    closed = doctor.reachable("SuperLink", f"127.0.0.1:{free_ports(1)[0]}", certs / "ca.crt")
    assert (closed.state, "is the SuperLink running" in closed.remedy) == (State.FAILED, True)
    unknown = doctor.reachable("SuperLink", "no-such-host.invalid:9092", certs / "ca.crt")
    assert (unknown.state, "is the name right" in unknown.remedy) == (State.FAILED, True)
    assert doctor.reachable("SuperLink", "nowhere", None).found.startswith("'nowhere' is not HOST:PORT")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def talk() -> None:
            with listening.accept()[0] as plain:
                plain.recv(1000)
                plain.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=talk)
        thread.start()
        plain = doctor.reachable("SuperLink", f"127.0.0.1:{listening.getsockname()[1]}", certs / "ca.crt")
        thread.join()
    assert (plain.state, "with TLS there" in plain.remedy) == (State.FAILED, True)


@pytest.mark.parametrize(
    ("seconds", "state"), [(0, State.OK), (-120, State.WARNING), (600, State.FAILED), (-4000, State.FAILED)]
)
def test_clocks_are_compared(seconds: int, state: State, certs: Path) -> None:
    with serving(certs, timedelta(seconds=seconds)) as address:
        assert doctor.clock(address, certs / "ca.crt").state is state


def test_a_clock_that_cannot_be_compared(certs: Path, tmp_path: Path) -> None:
    assert doctor.clock(f"127.0.0.1:{free_ports(1)[0]}", certs / "ca.crt").state is State.WARNING
    assert doctor.clock_after(certs / "ca.crt").state is State.OK
    later = write_server(tmp_path / "later", now=datetime.now(UTC) + timedelta(days=2))
    assert doctor.clock_after(later / "ca.crt").state is State.FAILED


def test_a_cas_certificate(certs: Path, tmp_path: Path) -> None:
    assert doctor.authority(certs / "ca.crt").state is State.OK
    assert doctor.authority(certs / "absent").state is State.FAILED
    assert "not of a CA" in doctor.authority(certs / "server.crt").found
    assert "not the PEM certificate" in doctor.authority(certs / "ca.key").found
    old = write_server(tmp_path / "old", now=datetime.now(UTC) - timedelta(days=3651))
    assert doctor.authority(old / "ca.crt").found.startswith("expired on")
    soon = write_server(tmp_path / "soon", now=datetime.now(UTC) - timedelta(days=3640))
    assert doctor.authority(soon / "ca.crt").state is State.WARNING


def test_a_sites_key(certs: Path) -> None:
    assert doctor.private_key(certs / "clinic-a.key").state is State.OK
    shutil.copy(certs / "clinic-b.pub", certs / "clinic-a.pub")
    assert "belongs to another key" in doctor.private_key(certs / "clinic-a.key").found
    (certs / "clinic-b.key").chmod(0o604)
    assert doctor.private_key(certs / "clinic-b.key").state is State.FAILED
    assert doctor.private_key(certs / "ca.key").state is State.FAILED


def test_a_shards_broken_files_are_counted(tiny_shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shard"
    shutil.copytree(tiny_shards / "client-0", folder)
    assert doctor.shard(folder).state is State.OK
    first, second, third, *rest = sorted(
        path for path in folder.glob("*/*") if path.suffix in (".wav", ".flac", ".png")
    )
    first.unlink()
    second.write_bytes(b"")
    third.write_bytes(b"no sound and no image")
    result = doctor.shard(folder)
    assert result.state is State.WARNING
    assert f"broken files: 3 {first.parent.name}" in result.found
    for path in rest:
        path.unlink()
    assert doctor.shard(folder).state is State.FAILED
    assert "there is no such folder" in doctor.shard(tmp_path / "absent").found


def test_packages_are_compared_with_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.version
    assert doctor.package_versions().state is State.OK
    monkeypatch.setattr(doctor, "version", lambda name: "1.41.0" if name == "flwr" else real(name))
    assert doctor.package_versions().found == "flwr is 1.41.0, not ==1.39.0"
    assert doctor.package_versions("no-such-package").state is State.FAILED
    monkeypatch.setattr(doctor, "requires", lambda _: ["no-such-package>=1", "colorama; extra == 'never'"])
    assert doctor.package_versions().found == "no-such-package is missing"


@pytest.mark.parametrize(("free", "state"), [(10**8, State.FAILED), (5 * 10**9, State.WARNING), (10**12, State.OK)])
def test_disk_space(free: int, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**13, 0, free))
    assert doctor.disk(tmp_path).state is state


def test_ports() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        taken = doctor.free_port(port, "the SuperNode")
        assert (taken.state, "in use" in taken.found) == (State.WARNING, True)
    assert doctor.free_port(free_ports(1)[0], "the SuperNode").state is State.OK


def test_a_policy(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    assert doctor.policy(path).state is State.FAILED
    for text, state in (("modalities: [audio]\n", State.OK), ("- a\n", State.FAILED), ("a: [\n", State.FAILED)):
        path.write_text(text)
        assert doctor.policy(path).state is state


class TestTheDevice:
    def test_the_processor_is_described_and_trains(self, tmp_path: Path) -> None:
        strict = tmp_path / "site.yaml"
        strict.write_text("gpu: false\n")
        found, training = doctor.device("auto", strict)
        assert (found.state, training.state) == (State.OK, State.OK)
        assert re.fullmatch(r"cpu; \d+ threads(; [\d.]+ GB of [\d.]+ GB memory free)?", found.found)
        rates = r"float32 \d+ examples/s, bfloat16 \d+ examples/s, float16 \d+ examples/s"
        assert re.fullmatch(rf"3 steps of a small model: {rates}(; peak memory [\d.]+ [MG]B)?", training.found)

    def test_the_model_of_an_experiment_trains_with_the_examples_of_the_shard(
        self, tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder, config = tmp_path / "shard", tmp_path / "tiny.yaml"
        shutil.copytree(tiny_shards / "client-1", folder)
        raw = {**RAW, "train": {**RAW["train"], "precision": "bfloat16"}}
        config.write_text(yaml.safe_dump(raw))
        assert call("doctor", "--device", "cpu", "--shard", folder, "--with", config) == 0
        assert "2 steps of the model of tiny: bfloat16" in capsys.readouterr().out.replace("\n", " ")
        assert call("doctor", "--device", "cpu", "--with", config) == 2
        assert "--with needs --device and --shard" in capsys.readouterr().err
        config.write_text(yaml.safe_dump({**RAW, "model": {"encoders": {"ecg": {"name": "series"}}}}))
        (result,) = doctor.device("cpu", None, folder, config)
        assert (result.check, result.state) == ("training", State.FAILED)

    def test_types_in_which_a_device_does_not_compute_are_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # torch's thread for the gradients of a device keeps its first number of threads, and later tests compare bits.
        monkeypatch.setattr(computing, "cores", lambda: 1)
        with pretended():
            found, training = doctor.device("far")
        assert (found.state, found.found) == (State.OK, "far:0")
        assert "float32" in training.found
        assert training.found.endswith("; not possible: bfloat16, float16")

    @pytest.mark.parametrize(
        ("said", "words"),
        [
            ("CUDA error: unspecified launch failure\nmore", "the GPU stopped working"),
            ("CUDA driver version is insufficient for CUDA runtime version", "update the driver"),
            ("CUDA out of memory. Tried to allocate 2.00 GiB", "is full, even with half a batch"),
            ("the size of tensor a\nmust match", "the training failed: RuntimeError: the size of tensor a"),
        ],
    )
    def test_a_fault_is_one_line_with_a_remedy(self, said: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> None:
            raise RuntimeError(said)

        monkeypatch.setattr(FedCMI, "loss", fail)
        (result,) = doctor.device("cpu")
        assert (result.state, words in result.found, "\n" in result.found) == (State.FAILED, True, False)
        assert "gpu.md" in result.remedy

    def test_a_device_that_is_absent_unknown_or_forbidden(self, tmp_path: Path) -> None:
        strict = tmp_path / "site.yaml"
        strict.write_text("gpu: false\n")
        for name, policy, words in (
            ("cuda:7", None, "device cuda:7: "),
            ("gpu", None, "use auto, cpu, cuda, cuda:N or mps"),
            ("cuda", strict, "forbids GPUs"),
            ("cpu", tmp_path / "absent.yaml", "absent.yaml"),
        ):
            (result,) = doctor.device(name, policy)
            assert (result.state, words in result.found) == (State.FAILED, True), result
            assert result.remedy

    def test_the_driver_is_asked_for_its_version(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        program = tmp_path / "nvidia-smi"
        monkeypatch.setenv("PATH", str(tmp_path))
        assert facts.driver() == ""
        for script, version in (("echo 580.65.06; echo 580.65.06", "580.65.06"), ("echo no driver; exit 9", "")):
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)
            assert facts.driver() == version
        assert facts.software(torch.device("cuda:0")) == f"driver unknown, CUDA {torch.version.cuda}"

    def test_without_a_name_the_option_chooses_the_device(self) -> None:
        assert parser().parse_args(["doctor", "--device"]).device == "auto"
        assert parser().parse_args(["doctor", "--device", "cuda:1", "--shard", "x"]).device == "cuda:1"


def options(**given: object) -> argparse.Namespace:
    asked = dict.fromkeys(("superlink", "address", "root_certificates", "key", "shard", "policy", "device", "config"))
    return argparse.Namespace(**(asked | given))


def test_what_is_not_asked_for_is_not_looked_at(certs: Path, tiny_shards: Path) -> None:
    always = ["packages", "disk", "GPU"]
    assert [one.check for one in doctor.examine(options())] == [*always, "port 8000", "port 9092", "port 9094"]
    with serving(certs) as address:
        site = options(
            superlink=address, root_certificates=certs / "ca.crt", key=certs / "clinic-a.key",
            shard=tiny_shards / "client-0",
        )  # fmt: skip
        named = ["port 9094", "CA certificate", "key", "shard", "SuperLink", "clock"]
        assert [one.check for one in doctor.examine(site)] == [*always, *named]


def test_one_line_a_check_a_remedy_for_each_failure_and_status_1(
    certs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("doctor", "--root-certificates", certs / "ca.crt", "--key", certs / "clinic-a.key") == 0
    assert "✗" not in capsys.readouterr().out
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    assert call("doctor", "--shard", tmp_path / "absent", "--superlink", nobody) == 1
    said = capsys.readouterr()
    assert said.out.count("✗") == 2 <= said.out.count("→")
    assert "error: 2 checks failed" in said.err
