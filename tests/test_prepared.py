"""Prepared values in memory, in the cache, and decoded when they are needed; by one process and by several."""

import errno
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_models import NEEDED, PRETRAINED, TAKES
from torch import Tensor
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from common.columns import Number
from common.config import plugins
from common.config.component import Reference, build, own_names
from common.data.batches import batches
from common.data.loader import Loaded, load
from common.data.prepared import cache, cached_file, progress, trained, workers
from common.data.prepared.decoded import Decoded
from common.data.prepared.made import Made
from common.data.prepared.mapped import Mapped
from common.data.prepared.preparing import Preparer
from common.data.shard import Example, Media, Shard, ShardInfo, ShardWriter
from common.encoders.base import FrozenEncoder
from common.errors import ShardError
from common.media.values import Raw, Value, encode_array, encode_image, encode_sound
from common.rows import Held, Rows
from common.seeding import torch_rng
from deploy.engines.processes import MARK, marked
from fedmosaic.testing.encoders import RAWS

COUNT = 150
"""More than two chunks."""


def picture(number: int) -> Media:
    return Media(lambda: encode_image(np.random.default_rng(number).integers(0, 256, (9, 7, 3), np.uint8)), ".png")


def sound(number: int) -> Media:
    return Media(
        lambda: encode_sound(np.random.default_rng(number).normal(size=900).astype(np.float32) / 9, 8000), ".wav"
    )


def signal_array(number: int) -> Media:
    return Media(lambda: encode_array(np.random.default_rng(number).normal(size=(40, 3)).astype(np.float32)), ".npy")


def video(number: int) -> Media:
    return Media(lambda: encode_array(np.random.default_rng(number).integers(0, 256, (4, 9, 9, 3), np.uint8)), ".npy")


def words(number: int) -> Media:
    return Media.text(f"the text number {number}")


DESCRIBED = {f"lab{place}": Number(type="number") for place in range(30)}
AGREED = {name: {"type": "number", "mean": 9.0, "std": 40.0} for name in DESCRIBED}


def row(number: int) -> Media:
    return Media.row({name: number + place for place, name in enumerate(DESCRIBED) if place != number % 30})


ENCODERS: dict[str, tuple[Reference, Callable[[int], Media]]] = {
    "image": ({"name": "image", "size": 8, "width": 8, "filters": 8}, picture),
    "frames": ({"name": "frames", "size": 8, "width": 8, "filters": 8}, video),
    "spectrogram": ({"name": "spectrogram", "n_mels": 8, "width": 8, "filters": 8, "seconds": 0.1}, sound),
    "signal": ({"name": "signal", "width": 8, "channels": 3, "length": 40}, signal_array),
    "text": ({"name": "text", "width": 8}, words),
    "table": ({"name": "table", "width": 8, "columns": AGREED}, row),
}
WAYS: dict[str, dict[str, str]] = {"memory": {}, "cache": {trained.GIGABYTES_VARIABLE: "0.000008"}}
WAYS["decoded"] = WAYS["cache"] | {cache.GIGABYTES_VARIABLE: "0"}
"""The settings of a site for each way to keep the values."""


def write(folder: Path, kind: str, count: int = COUNT) -> Shard:
    """A shard whose modality `m` has values for the encoder. Example 3 lacks it, but has the modality `also`."""
    make = ENCODERS[kind][1]
    columns = {"m": DESCRIBED} if kind == "table" else {}
    writer = ShardWriter(folder, ShardInfo(site="s", classes=["a", "b"], modalities=["m", "also"]), columns)
    media = [{"also": words(i)} | ({"m": make(i)} if i != 3 else {}) for i in range(count)]
    writer.write(Example(f"e{i}", "ab"[i % 2], one) for i, one in enumerate(media))
    return Shard.open(folder)


def loaded(shard: Shard, kind: str, **changes: Any) -> Loaded:
    made = {"m": Made(ENCODERS[kind][0] | changes), "also": Made(ENCODERS["text"][0])}
    return load(shard, {m: one.build() for m, one in made.items()}, made=made)


def source(found: Loaded) -> Any:
    assert isinstance(found.examples.inputs, Rows)
    return found.examples.inputs._whole["m"]


def set_way(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    for variable in (trained.GIGABYTES_VARIABLE, cache.GIGABYTES_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in WAYS[way].items():
        monkeypatch.setenv(variable, value)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    set_way(monkeypatch, name)
    return name


@pytest.fixture
def two_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes, started after the first task."""
    monkeypatch.setenv(workers.VARIABLE, "2")
    monkeypatch.setattr(workers, "WORTH_SECONDS", 0.0)


def everything(found: Loaded) -> list[Any]:
    """All that a model and a server see of a loaded shard, in batches of a shuffled order."""
    cut = batches(found.examples, 32, order=torch_rng(1, "order"))
    seen = [(dict(batch.inputs), dict(batch.origin), batch.labels.tolist()) for batch in cut]
    return [seen, found.ids, found.findings, found.unusable]


def same(one: Any, other: Any) -> bool:
    """Equality, bit for bit."""
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def test_every_trained_encoder_is_here() -> None:
    made = {name: Made({"name": name, **NEEDED.get(name, {})}) for name in own_names("encoder") if name in ENCODERS}
    assert not any(isinstance(one.build(), FrozenEncoder) for one in made.values())
    assert made.keys() | PRETRAINED == set(own_names("encoder"))


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_way_gives_the_same_bits(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard, found = write(tmp_path / "shard", kind), {}
    for way, held in (("memory", Held), ("cache", Mapped), ("cache", Mapped), ("decoded", Decoded)):
        set_way(monkeypatch, way)
        one = loaded(shard, kind)
        assert isinstance(source(one), held)
        found[way] = everything(one)
        assert (shard.folder / "cache").exists() == (way != "memory")
    assert same(found["memory"], found["cache"]) and same(found["memory"], found["decoded"])
    assert len(list((shard.folder / "cache").iterdir())) == 2


@pytest.mark.usefixtures("two_workers")
def test_processes_give_the_same_bits_and_leave_the_generator_alone(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = write(tmp_path / "shard", "image")
    (shard.records[70].files["m"]).write_bytes(b"no picture")
    torch.manual_seed(7)
    several, drawn = everything(loaded(shard, "image")), torch.rand(1)
    for file in shard.folder.glob("cache/*"):
        file.unlink()
    monkeypatch.setenv(workers.VARIABLE, "1")
    torch.manual_seed(7)
    assert same(several, everything(loaded(shard, "image")))
    assert torch.equal(drawn, torch.rand(1))


class TestFindings:
    def test_a_broken_file_is_counted_and_named(
        self, way: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        shard = write(tmp_path / "shard", "image")
        shard.records[70].files["m"].write_bytes(b"no picture")
        for _ in range(2):
            found = loaded(shard, "image")
            assert found.unreadable == {"m": 1}
            assert sum(found.findings["m"].reasons.values()) == 1
            assert found.examples.has("m").tolist() == [i not in (3, 70) for i in range(COUNT)]
        assert "m of example e70 is treated as missing: e70.png" in caplog.text

    def test_a_file_that_becomes_unreadable_later_is_an_error_with_the_reason_and_without_the_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        set_way(monkeypatch, "decoded")
        shard = write(tmp_path / "shard", "image")
        found = loaded(shard, "image")
        shard.records[70].files["m"].write_bytes(b"no picture")
        with pytest.raises(ShardError, match="m: a value that was readable before cannot be read now: ") as caught:
            everything(found)
        assert "e70" not in str(caught.value)
        monkeypatch.setattr(workers, "WORTH_SECONDS", 0.0)
        monkeypatch.setenv(workers.VARIABLE, "2")
        with pytest.raises(ShardError, match=r"cannot be read now: (?!.*Traceback)"):
            everything(found)


class TestNames:
    def test_options_files_and_plugins_change_the_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        set_way(monkeypatch, "cache")
        shard = write(tmp_path / "shard", "image")
        names = [{path.name for path in shard.folder.glob("cache/m-*")} for _ in [loaded(shard, "image")]]
        for change in (lambda: loaded(shard, "image", size=9), lambda: self._changed(shard)):
            change()
            names.append({path.name for path in shard.folder.glob("cache/m-*")} - set().union(*names))
        assert [len(new) for new in names] == [1, 1, 1]
        made = Made({"name": "image"})
        assert made.described() == Made({"name": "image", "size": 28}).described() != Made({"name": "text"}).described()

    @staticmethod
    def _changed(shard: Shard) -> Loaded:
        Image.new("RGB", (5, 5), "red").save(shard.records[5].files["m"])
        return loaded(shard, "image")

    @pytest.mark.parametrize("name", sorted(set(own_names("encoder")) - PRETRAINED))
    def test_options_of_the_network_change_neither_name_nor_value(self, name: str) -> None:
        others = {"width": 9, "filters": 8, "backbone": "resnet18", "augment": {}, "hidden": [7], "embedding": 3}
        reference = {"name": name, **NEEDED.get(name, {})}
        plain, raw = build("encoder", reference), RAWS[TAKES[name]]
        one = plain.build().prepare(raw)
        for option in plain.of_network:
            other = {**reference, option: others[option]}
            assert build("encoder", other) != plain
            assert Made(other).described() == Made(reference).described()
            assert torch.equal(build("encoder", other).build().prepare(raw), one)
        rest = type(plain).model_fields.keys() - plain.of_network
        assert rest and not rest & others.keys()

    def test_the_content_of_a_plugin_is_a_part_of_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        described = set()
        for digest in ("1", "2"):
            plugin = plugins.Plugin("one", "1.0", digest)

            def find(family: str, reference: Reference, plugin: plugins.Plugin = plugin) -> Any:
                used = plugins._used.get()
                assert used is not None
                used.add(plugin)
                return SimpleNamespace(model_dump_json=lambda exclude: "", of_network=frozenset(), content=str)

            monkeypatch.setattr("common.data.prepared.made.build", find)
            described.add(Made({"name": "of-a-plugin"}).described())
        assert len(described) == 2


class TestDisk:
    @pytest.fixture
    def shard(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shard:
        set_way(monkeypatch, "cache")
        return write(tmp_path / "shard", "image")

    def test_a_column_above_the_limit_is_refused_with_sizes_and_choices(
        self, shard: Shard, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(cache.GIGABYTES_VARIABLE, "0.00001")
        with pytest.raises(ShardError, match=r"GB are needed, FEDMOSAIC_CACHE_GB allows 1e-05 GB.*_GB=0 to decode"):
            loaded(shard, "image")

    def test_a_full_disk_is_refused_before_and_while_it_is_written(
        self, shard: Shard, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as context:
            context.setattr(cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 30))
            with pytest.raises(ShardError, match=r"1.07 GB must stay free; the disk has 1.07 GB\. Choices: "):
                loaded(shard, "image")

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(cached_file.Slots, "write", full)
        with pytest.raises(ShardError, match=r"No space left on device; .* GB are needed"):
            loaded(shard, "image")
        assert not list((shard.folder / "cache").iterdir())

    def test_a_shard_that_cannot_be_written_is_decoded(
        self, shard: Shard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(errno.EROFS, os.strerror(errno.EROFS))

        monkeypatch.setattr(Path, "mkdir", refuse)
        found = loaded(shard, "image")
        assert isinstance(source(found), Decoded) and found.findings["m"].values == COUNT - 1
        assert "Read-only file system" in caplog.text and "are decoded when they are needed" in caplog.text

    @pytest.mark.parametrize("cut", [0, 30, 20_000])
    def test_a_damaged_file_is_made_again(self, shard: Shard, cut: int, caplog: pytest.LogCaptureFixture) -> None:
        before = everything(loaded(shard, "image"))
        for path in shard.folder.glob("cache/m-*"):
            content = path.read_bytes()
            path.unlink()  # a file is never changed, because it may be mapped
            path.write_bytes(content[:cut])
        assert same(before, everything(loaded(shard, "image")))
        assert "its values are prepared again" in caplog.text

    def test_an_unfinished_file_is_not_used_and_goes_when_its_process_has_ended(self, shard: Shard) -> None:
        before = everything(loaded(shard, "image"))
        (kept,) = shard.folder.glob("cache/m-*")
        abandoned = kept.rename(kept.with_suffix(".0123.partial"))
        layout = cached_file.Layout(4, 4, (2,), torch.uint8)
        with cached_file.unfinished(shard.folder / "cache" / "other.safetensors", layout) as other:
            assert same(before, everything(loaded(shard, "image")))
            assert not abandoned.exists() and other.slots.path.exists()
            other.finish(torch.arange(4), before[2]["m"])
        column = cached_file.read(shard.folder / "cache" / "other.safetensors")
        assert column.values.take(torch.tensor([0, 3])).tolist() == [[0, 0], [0, 0]]

    def test_the_size_is_logged_before_it_is_written(self, shard: Shard, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO):
            loaded(shard, "image")
        assert f"m: {COUNT - 1} values are prepared, " in caplog.text and "GB are written to " in caplog.text

    def test_only_encoders_of_an_experiment_are_cached(self, shard: Shard) -> None:
        encoders = {"m": Made(ENCODERS["image"][0]).build()}
        assert isinstance(source(load(shard, encoders)), Decoded)
        assert not (shard.folder / "cache").exists()


@dataclass(frozen=True)
class Deadly(Value):
    """A value whose reading ends a worker process."""

    parent: int = 0

    def read(self) -> Raw:
        if os.getpid() != self.parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read()


class TestProcesses:
    @pytest.mark.usefixtures("two_workers")
    def test_a_killed_process_is_an_error_that_names_the_way_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            _MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,)
        )  # seconds between checks
        made = Made(ENCODERS["text"][0])
        values = [Deadly("some text", parent=os.getpid())] * 9
        column = Decoded(Preparer("m", made.build(), made, values))
        with pytest.raises(ShardError, match=r"process that prepares values has ended.*FEDMOSAIC_WORKERS"):
            list(column.stream([torch.tensor([i]) for i in range(9)]))

    def test_short_work_starts_no_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(workers, "_shared", lambda *_: pytest.fail("a process was started"))
        assert list(workers.in_order(str, range(5))) == list("01234")

    def test_a_wrong_number_of_processes_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(workers.VARIABLE, "many")
        with pytest.raises(ShardError, match="FEDMOSAIC_WORKERS='many' is not a number"):
            workers.workers()

    def test_progress_is_logged_where_there_is_no_terminal(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(progress, "SECONDS", 0.0)
        with caplog.at_level(logging.INFO), progress.progress("m", 2000) as add:
            add(1500)
        assert "m: 1,500 of 2,000 values are prepared" in caplog.text

    def test_a_bar_is_shown_on_a_terminal(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
        with progress.progress("m", 20) as add:
            add(15)
        assert "preparing m" in capsys.readouterr().err


def test_batches_and_columns_without_a_value(way: str, tmp_path: Path) -> None:
    shard = write(tmp_path / "shard", "image")
    found = loaded(shard, "image")
    (batch,) = batches(found.examples.rows(torch.tensor([3])), 4)
    assert batch.inputs["m"].shape == (1, *source(found).blank.shape) and not batch.inputs["m"].any()
    assert batch.inputs["m"].dtype == source(found).blank.dtype
    for record in shard.records:
        if record.id != "e3":
            record.files["m"].write_bytes(b"no picture")
    found = loaded(shard, "image")
    assert found.unreadable == {"m": COUNT - 1} and not found.examples.inputs["m"].any()


def test_another_device_gets_the_same_batches(tmp_path: Path) -> None:
    found = loaded(write(tmp_path / "shard", "text", 20), "text")
    moved = list(batches(found.examples, 6, torch.device("meta")))
    assert [len(batch) for batch in moved] == [6, 6, 6, 2]
    assert all(batch.inputs["m"].is_meta for batch in moved)
    threads = threading.active_count()
    next(iter(batches(found.examples, 6, torch.device("meta"))))
    assert threading.active_count() == threads


KILLED = """
import time
from common.data.prepared import workers

workers.WORTH_SECONDS = 0.0
for number in workers.in_order(time.sleep, [0.01] * 3 + [600] * 5):
    print("begun", flush=True)
"""


def test_no_process_survives_its_site() -> None:
    env = {**os.environ, MARK: "survivors", workers.VARIABLE: "2", "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", KILLED], env=env, stdout=subprocess.PIPE, text=True) as site:
        assert site.stdout is not None and site.stdout.readline() == "begun\n"
        assert until(lambda: len(list(marked("survivors"))) >= 4)  # the site, two workers, and the process that forks
        site.kill()
    assert until(lambda: not list(marked("survivors")))


def until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.1)
    return holds()
