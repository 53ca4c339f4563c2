"""Trackers: the figures of a run arrive, and no tracker that fails costs a round."""

import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml
from conftest import RAW
from prometheus_client.parser import text_string_to_metric_families
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter
from test_cli import call
from wandb.proto.wandb_internal_pb2 import Record

from client.site import Site
from common.config.component import own_names
from common.errors import ConfigError, RunError
from deploy.engines.launch import Plan
from deploy.engines.processes import free_ports
from fedmosaic import run
from fedmosaic.testing import TrackerContract
from fedmosaic.testing.examples import experiment
from fedmosaic.testing.trackers import line, summary
from server.record.run_folder import read_rounds
from server.rounds.federation import Federation
from server.trackers.mlflow import MLflow
from server.trackers.prometheus import Prometheus, PrometheusTracker
from server.trackers.shared import chosen, follower
from server.trackers.shared.chosen import references
from server.trackers.shared.failures import failures
from server.trackers.tensorboard import TensorBoard, TensorBoardTracker
from server.trackers.wandb import Wandb

pytestmark = pytest.mark.usefixtures("undrawn")
TAG = "test/audio/accuracy"
PATIENT = 300.0
"""Seconds that a run may wait for its trackers on a slow machine, where a test is not about this wait."""
mlflows_warnings = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
"""SQLAlchemy warns about the code of MLflow, which only MLflow can change."""
needs_mlflow = pytest.mark.skipif(find_spec("mlflow") is None, reason="the extra mlflow is not installed")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(RAW))
    return path


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chosen, "WAIT_SECONDS", PATIENT)


def events(folder: Path, tag: str) -> list[tuple[int, float]]:
    """Step and value of the events of a tag, in their order."""
    found = EventAccumulator(str(folder)).Reload()
    return [(event.step, event.value) for event in found.Scalars(tag)]


def wandb_records(path: Path) -> Iterator[Record]:
    """The records of a run's file: 7 bytes, then blocks of 32 KiB, in which each part of a record has a header of
    checksum, length and type (1 whole, 2 first, 3 middle, 4 last), as in a log of LevelDB."""
    data, place, record = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield Record.FromString(record)
            record = b""


def wandb_values(folder: Path, tag: str) -> dict[int, float]:
    """By round, the values of a tag in all offline files of a run folder."""
    found = {}
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for record in wandb_records(path):
            items = {"/".join([item.key, *item.nested_key][not item.key :]): item.value_json
                     for item in record.history.item}  # fmt: skip
            if tag in items:
                found[record.history.step.num] = json.loads(items[tag])
    return found


class TestTensorBoard(TrackerContract):
    @pytest.fixture
    def options(self) -> TensorBoard:
        return TensorBoard()

    def values(self, folder: Path, tag: str) -> dict[int, float]:
        return dict(events(folder / "tensorboard", tag))

    def test_a_folder_for_all_runs_has_one_for_each(self, folder: Path, tmp_path: Path) -> None:
        tracker = TensorBoard(folder=str(tmp_path / "all")).build()
        self.follow(tracker, folder, range(2))
        tracker.close()
        assert dict(events(tmp_path / "all" / "run", TAG)) == {0: 0.0, 1: 0.125}


class TestWandb(TrackerContract):
    @pytest.fixture
    def options(self) -> Wandb:
        return Wandb(mode="offline")

    def values(self, folder: Path, tag: str) -> dict[int, float]:
        return wandb_values(folder, tag)

    def test_a_run_has_its_configuration_and_a_resumed_run_its_id(self, options: Wandb, folder: Path) -> None:
        for resumed in (False, True):
            tracker = options.build()
            self.follow(tracker, folder, range(1), resumed)
            tracker.close()
        runs = [record.run for path in folder.glob("wandb/offline-run-*/*.wandb")
                for record in wandb_records(path) if record.HasField("run")]  # fmt: skip
        assert len({one.run_id for one in runs}) == 1
        assert {(one.project, one.display_name) for one in runs} == {("fedmosaic", "run")}
        given = {item.key: json.loads(item.value_json) for one in runs for item in one.config.update}
        assert given["seed"] == RAW["seed"]

    def test_no_key_is_a_reason_and_no_question(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        with pytest.raises(RunError, match="set WANDB_API_KEY, or WANDB_MODE=offline"):
            Wandb().build().begin(experiment(), folder, False)


class Scraped(PrometheusTracker):
    """Reads its own endpoint after each round, as a Prometheus server does."""

    def __init__(self, options: Prometheus, seen: dict[int, dict[str, float]]) -> None:
        super().__init__(options)
        self.port, self.seen = options.port, seen

    def round(self, line: Any) -> None:
        super().round(line)
        with urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        samples = [sample for family in families for sample in family.samples]
        self.seen[line["round"]] = {"/".join([s.name, *sorted(s.labels.values())]): s.value for s in samples}


class ScrapedOptions(Prometheus):
    seen: dict[int, dict[str, float]] = {}  # noqa: RUF012  (pydantic copies it)

    def build(self) -> Scraped:
        return Scraped(self, self.seen)


class TestPrometheus(TrackerContract):
    @pytest.fixture
    def options(self) -> ScrapedOptions:
        self.seen: dict[int, dict[str, float]] = {}
        (port,) = free_ports(1)
        made = ScrapedOptions(port=port)
        self.seen = made.seen
        return made

    def values(self, folder: Path, tag: str) -> dict[int, float]:
        name = {TAG: "fedmosaic_figure/accuracy/audio/test", "losses/fused": "fedmosaic_loss/fused"}[tag]
        return {number: samples[name] for number, samples in self.seen.items()}

    def test_sites_bytes_seconds_and_the_run_are_there_and_end_with_it(
        self, options: ScrapedOptions, folder: Path
    ) -> None:
        tracker = options.build()
        self.follow(tracker, folder, range(3))
        tracker.close()
        last = self.seen[2]
        assert last["fedmosaic_run/3/fedcmi/tiny"] == 1
        assert (last["fedmosaic_round"], last["fedmosaic_rounds"]) == (2, 2)
        assert (last["fedmosaic_sites/trained"], last["fedmosaic_sites/failed"]) == (1, 1)
        assert last["fedmosaic_sites/connected"] == 1
        assert (last["fedmosaic_bytes_total/up"], last["fedmosaic_bytes_total/down"]) == (3000, 6000)
        assert last["fedmosaic_seconds/total"] == 0.5
        with pytest.raises(OSError, match="refused"):
            urlopen(f"http://127.0.0.1:{options.port}/metrics")


@needs_mlflow
@mlflows_warnings
class TestMLflow(TrackerContract):
    @pytest.fixture
    def options(self) -> MLflow:
        return MLflow()

    def client(self, folder: Path) -> Any:
        from mlflow.tracking import MlflowClient

        return MlflowClient(f"sqlite:///{folder.parent / 'mlflow.db'}")

    def run(self, folder: Path) -> Any:
        client = self.client(folder)
        (found,) = client.search_runs([client.get_experiment_by_name("fedmosaic").experiment_id])
        return found

    def values(self, folder: Path, tag: str) -> dict[int, float]:
        history = self.client(folder).get_metric_history(self.run(folder).info.run_id, tag)
        return {metric.step: metric.value for metric in history}

    def test_a_run_has_parameters_tags_summary_and_files(self, options: MLflow, folder: Path) -> None:
        tracker = options.build()
        self.follow(tracker, folder, range(2))
        tracker.close()
        found = self.run(folder)
        assert (found.info.status, found.info.run_name) == ("FINISHED", "run")
        assert found.data.params["model.encoders.audio.n_mels"] == "16"
        assert {name: found.data.tags[name] for name in ("name", "method", "seed")} == {
            "name": "tiny", "method": "fedcmi", "seed": "3"}  # fmt: skip
        assert found.data.metrics["summary/bytes_up"] == 3000
        assert [one.path for one in self.client(folder).list_artifacts(found.info.run_id)] == ["experiment.yaml"]

    def test_a_failed_run_is_failed_and_a_run_that_is_lost_begins_again(self, options: MLflow, folder: Path) -> None:
        tracker = options.build()
        tracker.begin(experiment(), folder, False)
        tracker.end(summary("failed"))
        assert self.run(folder).info.status == "FAILED"
        (folder / "trackers" / "mlflow").write_text("0" * 32)
        again = options.build()
        again.begin(experiment(), folder, True)
        again.end(summary())
        client = self.client(folder)
        found = client.search_runs([client.get_experiment_by_name("fedmosaic").experiment_id])
        assert sorted(one.info.status for one in found) == ["FAILED", "FINISHED"]


def test_every_tracker_has_a_contract_here() -> None:
    assert own_names("tracker") == ["mlflow", "prometheus", "tensorboard", "wandb"]


def without_times(folder: Path) -> list[Any]:
    """The lines of metrics.jsonl without the times, and without the bytes of replies, which contain times."""

    def cleaned(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: cleaned(inner) for name, inner in value.items() if name not in ("seconds", "bytes_up")}
        return value

    return [cleaned(line) for line in read_rounds(folder)]


@pytest.fixture(scope="module")
def plain(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run without trackers."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(RAW))
    return run(folder / "tiny.yaml", shards=tiny_shards, run_dir=folder / "run").folder


def assert_same_run(one: Path, other: Path) -> None:
    assert without_times(one) == without_times(other)
    a, b = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert a.keys() == b.keys()
    assert all(a[name].equal(b[name]) for name in a)
    assert json.loads((one / "summary.json").read_text())["status"] == "completed"


def warnings(folder: Path) -> list[str]:
    """The warnings about trackers in the log of a run in this process."""
    lines = (folder / "logs" / "run.log").read_text().splitlines()
    return [line.split("WARNING ")[1] for line in lines if "WARNING tracker" in line]


def test_trackers_follow_a_run_and_change_nothing(config: Path, tiny_shards: Path, plain: Path, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    given = ["tensorboard", {"name": "wandb", "mode": "offline"}, f"{{name: prometheus, port: {port}}}"]
    folder = run(config, shards=tiny_shards, run_dir=tmp_path / "run", trackers=given).folder
    assert_same_run(folder, plain)
    assert warnings(folder) == failures(folder) == []
    told = {line["round"]: line["test"]["audio+image"]["accuracy"] for line in read_rounds(folder)}
    assert dict(events(folder / "tensorboard", "test/audio+image/accuracy")) == pytest.approx(told)
    assert wandb_values(folder, "test/audio+image/accuracy") == told


@needs_mlflow
@mlflows_warnings
def test_mlflow_has_the_run_and_its_report(config: Path, tiny_shards: Path, plain: Path, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    folder = run(config, shards=tiny_shards, run_dir=tmp_path / "run", trackers=["mlflow"]).folder
    assert_same_run(folder, plain)
    assert warnings(folder) == []
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    identity = (folder / "trackers" / "mlflow").read_text()
    accuracy = [metric.value for metric in client.get_metric_history(identity, "test/audio.image/accuracy")]
    assert accuracy == [line["test"]["audio+image"]["accuracy"] for line in read_rounds(folder)]
    assert {one.path for one in client.list_artifacts(identity)} == {"experiment.yaml", "report.html"}
    assert "round 2:" in (folder / "logs" / "run.log").read_text()  # MLflow leaves the log alone


class Fault:
    """Follows a method of the TensorBoard tracker."""

    def __init__(self, method: str, effect: Callable[[], object], reason: str) -> None:
        self.method, self.effect, self.reason = method, effect, reason

    def __repr__(self) -> str:
        return f"{self.reason[:12]} in {self.method}"


def raises(error: BaseException) -> Callable[[], object]:
    def effect() -> object:
        raise error

    return effect


FAULTS = [
    Fault("begin", raises(ConnectionRefusedError(111, "Connection refused")), "ConnectionRefusedError: "),
    Fault("round", raises(RuntimeError("gone\nand away")), "RuntimeError: gone and away"),
    Fault("round", raises(OSError("https://ann:pw@host/a: no answer")), "OSError: https://host/a: no answer"),
    Fault("round", raises(SystemExit(3)), "SystemExit: 3"),
    Fault("end", raises(ValueError()), "ValueError;"),
    Fault("close", raises(OSError(28, "No space left on device")), "OSError: [Errno 28] No space left"),
]


@pytest.mark.parametrize(
    "fault",
    [pytest.param(fault, marks=[] if fault.method in ("begin", "close") else pytest.mark.slow) for fault in FAULTS],
    ids=repr,
)
def test_a_failing_tracker_costs_one_warning(
    fault: Fault,
    config: Path,
    tiny_shards: Path,
    plain: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    method = getattr(TensorBoardTracker, fault.method)
    monkeypatch.setattr(TensorBoardTracker, fault.method, lambda *given: (method(*given), fault.effect()))
    options = ("--shards", tiny_shards, "--run-dir", tmp_path / "run", "--track", "tensorboard")
    assert call("run", config, "--engine", "inprocess", *options) == 0
    assert_same_run(tmp_path / "run", plain)
    (warning,) = warnings(tmp_path / "run")
    assert warning.startswith(f"tracker tensorboard: {fault.reason}")
    said = capsys.readouterr()
    assert said.out.count("the run continues without it") == 1
    assert "Traceback" not in said.out + said.err


@pytest.mark.parametrize(
    "method", ["round", *(pytest.param(name, marks=pytest.mark.slow) for name in ("begin", "end", "close"))]
)
def test_a_hanging_tracker_costs_one_warning(
    method: str, config: Path, tiny_shards: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, before = threading.Event(), getattr(TensorBoardTracker, method)
    monkeypatch.setattr(chosen, "WAIT_SECONDS", 0.2)
    monkeypatch.setattr(TensorBoardTracker, method, lambda *given: (released.wait(), before(*given)))
    try:
        folder = run(config, shards=tiny_shards, run_dir=tmp_path / "run", trackers=["tensorboard"]).folder
        assert_same_run(folder, plain)
        assert warnings(folder) == ["tracker tensorboard: it did not finish in time; the run continues without it"]
    finally:
        released.set()
    for thread in threading.enumerate():
        if thread.name == "tracker tensorboard":
            thread.join()
    assert len(failures(folder)) == 1


def test_a_tracker_that_falls_behind_is_left_alone(
    config: Path, tiny_shards: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    monkeypatch.setattr(chosen, "WAIT_SECONDS", 0.2)
    monkeypatch.setattr(follower, "MOST_WAITING", 1)
    monkeypatch.setattr(TensorBoardTracker, "begin", lambda *_: released.wait())
    try:
        folder = run(config, shards=tiny_shards, run_dir=tmp_path / "run", trackers=["tensorboard"]).folder
        assert_same_run(folder, plain)
        assert warnings(folder) == ["tracker tensorboard: it is 1 events behind; the run continues without it"]
    finally:
        released.set()


def test_a_full_disk_costs_one_warning(
    config: Path, tiny_shards: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = TensorBoardTracker.begin

    def begin_on_a_full_disk(self: TensorBoardTracker, *given: Any) -> None:
        begin(self, *given)
        self.close()
        self._file = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115  (writes raise ENOSPC)
        self._records = RecordWriter(self._file)

    monkeypatch.setattr(TensorBoardTracker, "begin", begin_on_a_full_disk)
    folder = run(config, shards=tiny_shards, run_dir=tmp_path / "run", trackers=["tensorboard"]).folder
    assert_same_run(folder, plain)
    (warning,) = warnings(folder)
    assert warning.startswith("tracker tensorboard: OSError: [Errno 28] No space left on device")


@pytest.mark.parametrize(
    ("tracker", "module"),
    [
        pytest.param("tensorboard", "tensorboard.compat.proto.event_pb2", marks=pytest.mark.slow),
        ("mlflow", "mlflow.tracking"),
        pytest.param("wandb", "wandb", marks=pytest.mark.slow),
        pytest.param("prometheus", "prometheus_client", marks=pytest.mark.slow),
    ],
)
def test_an_absent_package_costs_one_warning(
    tracker: str,
    module: str,
    config: Path,
    tiny_shards: Path,
    plain: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    folder = run(config, shards=tiny_shards, run_dir=tmp_path / "run", trackers=[tracker]).folder
    assert_same_run(folder, plain)
    (warning,) = warnings(folder)
    assert f"pip install 'fedmosaic[{tracker}]'" in warning


def test_a_port_in_use_costs_one_warning(config: Path, tiny_shards: Path, plain: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        folder = run(
            config, shards=tiny_shards, run_dir=tmp_path / "run", trackers=[{"name": "prometheus", "port": port}]
        ).folder
    assert_same_run(folder, plain)
    (warning,) = warnings(folder)
    assert "Address already in use" in warning


def test_the_end_of_a_run_waits_a_few_seconds_for_all_trackers_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chosen, "WAIT_SECONDS", 0.3)
    released, waited = threading.Event(), []
    monkeypatch.setattr(TensorBoardTracker, "begin", lambda *_: released.wait())
    monkeypatch.setattr(PrometheusTracker, "begin", lambda *_: released.wait())
    monkeypatch.setattr(follower.Follower, "wait", lambda self, until: waited.append(until))
    trackers = chosen.Trackers('["tensorboard", "prometheus"]')
    trackers.begin(experiment(), tmp_path, False)
    before = time.monotonic()
    trackers.end({})
    released.set()
    assert len(waited) == 2
    assert waited[0] == waited[1] >= before + 0.3


def test_a_resumed_run_continues_at_its_trackers(
    config: Path, tiny_shards: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["tensorboard", {"name": "wandb", "mode": "offline"}]
    with monkeypatch.context() as patch:
        whole = Federation._round

        def stops(self: Federation, number: int, *more: Any) -> Any:
            if number == 2:
                raise RunError("the power failed")
            return whole(self, number, *more)

        patch.setattr(Federation, "_round", stops)
        with pytest.raises(RunError, match="the power failed"):
            run(config, shards=tiny_shards, run_dir=tmp_path / "run", trackers=given)
    folder = run(config, shards=tiny_shards, run_dir=tmp_path / "run", trackers=given, resume=True).folder
    assert warnings(folder) == []
    told = {line["round"]: line["test"]["audio"]["accuracy"] for line in read_rounds(folder)}
    found = events(folder / "tensorboard", TAG)
    assert [step for step, _ in found] == [0, 1, 2]
    assert dict(found) == pytest.approx(told)
    assert wandb_values(folder, TAG) == told
    assert len({path.name for path in folder.glob("wandb/offline-run-*/*.wandb")}) == 1


def test_rounds_that_a_resumed_run_repeats_are_there_once(tmp_path: Path) -> None:
    for resumed, numbers in ((False, range(4)), (True, range(2, 4))):
        tracker = TensorBoard().build()
        tracker.begin(experiment(), tmp_path, resumed)
        for number in numbers:
            tracker.round(line(number))
        tracker.close()
    assert [step for step, _ in events(tmp_path / "tensorboard", TAG)] == [0, 1, 2, 3]


def test_nothing_of_a_tracker_reaches_sites_checkpoints_or_models(
    config: Path, tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, sent, answer = tmp_path / "place-of-events", [], Site.answer

    def recorded(self: Site, message: Any) -> Any:
        sent.append(repr(message.content))
        return answer(self, message)

    monkeypatch.setattr(Site, "answer", recorded)
    given = [{"name": "tensorboard", "folder": str(place)}]
    folder = run(config, shards=tiny_shards, run_dir=tmp_path / "run", trackers=given).folder
    assert (place / "run").is_dir()
    assert any('"method"' in text or "method" in text for text in sent)
    kept = [path for path in folder.rglob("*") if path.is_file()]
    assert {"experiment.yaml", "model.safetensors", "summary.json"} < {path.name for path in kept}
    for content in [*(text.encode() for text in sent), *(path.read_bytes() for path in kept)]:
        assert b"place-of-events" not in content
        assert b"tensorboard" not in content


MISTAKES = [
    (["tensorbord"], "unknown tracker 'tensorbord'; known: .*; did you mean 'tensorboard'"),
    (["{name: prometheus, prt: 1}"], "prometheus.prt: unknown option 'prt'; known: port; did you mean 'port'"),
    (["{name: prometheus, port: 0}"], "prometheus.port: input should be greater than or equal to 1, not 0"),
    (["{port: 9464}"], "tracker: needs a name"),
    (["{name: "], "a name, or a mapping such as"),
    (["prometheus", "{name: prometheus, port: 9500}"], "prometheus: is named 2 times; name it once"),
    ([""], "tracker: needs a name"),
    (["{name: mlflow, tracking_uri: 'https://ann:pw@host'}"], "set MLFLOW_TRACKING_USERNAME"),
    (["{name: mlflow, tracking_uri: ./mlruns}"], "use a database file, e.g. sqlite:///mlflow.db"),
    (["{name: wandb, mode: off}"], "wandb.mode: "),
    (["{name: wandb, api_key: x}"], "wandb.api_key: unknown option"),
]


@pytest.mark.parametrize(("given", "reason"), MISTAKES)
def test_a_wrong_choice_is_a_mistake(given: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        references(given)


def test_all_mistakes_are_reported_before_anything_is_written(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word for texts, _ in MISTAKES for text in texts for word in ("--track", text)]
    run_it = ("run", config, "--engine", "inprocess", "--shards", tmp_path / "shards", "--run-dir", tmp_path / "run")
    assert call(*run_it, *given) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: --track: ") or "--track: " in errors
    for part in ("'tensorbord'", "'prt'", "'{name: '", "MLFLOW_TRACKING_USERNAME", "wandb.mode", "api_key"):
        assert part in errors
    assert not (tmp_path / "shards").exists() and not (tmp_path / "run").exists()


def test_options_do_not_go_to_the_nodes_of_a_superlink(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link = ("run", config, "--engine", "superlink", "--address", "192.0.2.1:9093", "--insecure")
    assert call(*link, "--track", "{name: mlflow, tracking_uri: 'http://mlflow.internal'}") == 2
    assert "mlflow: with --engine superlink, name the tracker alone" in capsys.readouterr().err
    settings = Plan("superlink", experiment(), Path("shards"), trackers=tuple(references(["mlflow"]))).settings()
    assert json.loads(settings["trackers"]) == [{"name": "mlflow", "tracking_uri": None, "experiment": None}]
    assert "mlflow" not in settings["experiment"]


def test_a_database_file_is_that_of_the_user_s_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (found,) = references([{"name": "mlflow", "tracking_uri": "sqlite:///here.db"}])
    assert found["tracking_uri"] == f"sqlite:///{tmp_path / 'here.db'}"
    assert references([found]) == [found]
