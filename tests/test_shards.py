"""Shards: from a data set to folders and back, and everything that can be wrong with one."""

import hashlib
import io
import json
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import soundfile
from conftest import experiment
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture

from common.build import build_model
from common.config.experiment import Dirichlet, Iid, LabelShards, Missing, Natural
from common.data.batches import batches
from common.data.completed import find_completed, folder_of
from common.data.loader import Loaded, load
from common.data.prepared.frozen import frozen_column
from common.data.shard import Shard, ShardInfo
from common.errors import DataError, ShardError
from common.media.values import encode_sound
from common.split.make import check_made, make_shards
from common.split.missing import drop, unimodal_clients
from common.split.partition import partition
from common.types import Origin


def fingerprint(folder: Path) -> str:
    """A hash over names and bytes of all files."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path.relative_to(folder)).encode() + (path.read_bytes() if path.is_file() else b""))
    return digest.hexdigest()


def load_shard(folder: Path) -> Loaded:
    model = build_model(experiment(), 10)
    return load(Shard.open(folder), {m: model.encoder(m) for m in model.modalities})


def test_same_seed_same_bytes(tiny_shards: Path, tmp_path: Path) -> None:
    make_shards(experiment(), tmp_path / "again")
    make_shards(experiment(seed=4), tmp_path / "other")
    assert fingerprint(tiny_shards) == fingerprint(tmp_path / "again") != fingerprint(tmp_path / "other")


def test_no_image_and_no_recording_is_in_two_places(tmp_path: Path) -> None:
    make_shards(experiment(data__limit=None, data__test_limit=None, data__clients=4), tmp_path / "shards")
    seen: Counter[str] = Counter()
    for folder in (tmp_path / "shards").iterdir():
        if folder.is_dir():
            for record in Shard.open(folder).records:
                part, _, image, clip = record.id.split("-", 3)
                assert part == ("test" if folder.name == "test" else "train")
                seen.update([f"image {image}", f"clip {clip}"])
    assert set(seen.values()) == {1}
    assert len(seen) > 2000


def test_missing_scenarios_on_disk(tmp_path: Path) -> None:
    missing = {"unimodal_clients": 0.5, "incomplete": 0.5, "rates": {"image": 0.3}}
    made = make_shards(experiment(data__missing=missing, data__clients=4, data__limit=200), tmp_path / "shards")
    held = [Shard.open(folder).info.modalities for folder in made]
    assert sorted(map(len, held)) == [1, 1, 2, 2]
    assert {only for h in held if len(h) == 1 for only in h} == {"audio", "image"}
    for folder, modalities in zip(made, held, strict=True):
        records = Shard.open(folder).records
        assert all(record.files for record in records)
        complete = sum(len(record.files) == 2 for record in records)
        assert complete < len(records) if len(modalities) == 2 else complete == 0
    assert all(len(record.files) == 2 for record in Shard.open(tmp_path / "shards" / "test").records)


def test_without_a_data_set_no_shards_are_made(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data set to make shards from"):
        make_shards(experiment(data__set=None), tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


def test_shards_of_other_options_are_not_taken_for_these(tiny_shards: Path) -> None:
    check_made(experiment(train__lr=0.5), tiny_shards)
    with pytest.raises(ShardError, match="seed: 3, now 9"):
        check_made(experiment(seed=9), tiny_shards)


def test_an_existing_folder_is_not_overwritten(tiny_shards: Path) -> None:
    before = fingerprint(tiny_shards)
    with pytest.raises(ShardError, match="exists and is not empty"):
        make_shards(experiment(), tiny_shards)
    assert fingerprint(tiny_shards) == before


LABELS = st.lists(st.sampled_from("abcde"), min_size=60, max_size=120)


@settings(max_examples=20, deadline=None)
@given(
    LABELS,
    st.integers(2, 5),
    st.integers(0, 100),
    st.sampled_from(["iid", "dirichlet", "label-shards", "natural"]),
)
def test_a_partition_gives_every_example_to_exactly_one_client(
    labels: list[str], clients: int, seed: int, name: str
) -> None:
    schemes = {"iid": Iid(name="iid"), "dirichlet": Dirichlet(name="dirichlet", alpha=1.0, min_examples=1),
               "label-shards": LabelShards(name="label-shards"), "natural": Natural(name="natural")}  # fmt: skip
    groups = [f"g{i % 7}" for i in range(len(labels))]
    parts = partition(labels, groups, clients, schemes[name], seed)
    given_out = sorted(i for part in parts for i in part)
    assert len(set(given_out)) == len(given_out)
    assert len(given_out) > len(labels) - (2 * clients if name == "label-shards" else 1)
    assert parts == partition(labels, groups, clients, schemes[name], seed)
    if name == "natural":
        owners = [{groups[i] for i in part} for part in parts]
        assert sum(map(len, owners)) == len(set(groups))


def test_impossible_partitions_say_why() -> None:
    with pytest.raises(DataError, match="no natural ids"):
        partition(["a"] * 4, [""] * 4, 2, Natural(name="natural"), 0)
    with pytest.raises(DataError, match="3 clients are needed, the data set has 2"):
        partition(["a"] * 4, ["x", "y"] * 2, 3, Natural(name="natural"), 0)
    with pytest.raises(DataError, match="cannot be divided"):
        partition(["a"], ["x"], 2, Iid(name="iid"), 0)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.floats(0, 1), st.floats(0, 1), st.integers(0, 50), st.integers(2, 4))
def test_nobody_loses_everything_and_shares_are_met(rows: int, beta: float, rate: float, seed: int, count: int) -> None:
    modalities = [f"m{i}" for i in range(count)]
    present = [frozenset(modalities)] * rows
    kept = drop(present, [""] * len(present), Missing(incomplete=beta), seed, "x")
    assert sum(len(k) == count - 1 for k in kept) == round(beta * rows)
    assert all(len(k) >= count - 1 for k in kept)
    lost = Counter(m for k in kept for m in set(modalities) - k)
    assert max(lost.values(), default=0) - min((lost[m] for m in modalities), default=0) <= 1
    kept = drop(present, [""] * len(present), Missing(rates=dict.fromkeys(modalities, rate)), seed, "x")
    assert all(kept)
    assert kept == drop(present, [""] * len(present), Missing(rates=dict.fromkeys(modalities, rate)), seed, "x")


def test_what_is_missing_may_depend_on_the_class_or_on_the_client() -> None:
    labels = [str(i % 5) for i in range(1000)]
    present = [frozenset("ab")] * len(labels)

    def shares(purpose: str, depends_on: Literal["class", "client"]) -> list[float]:
        kept = drop(present, labels, Missing(incomplete=0.5, depends_on=depends_on), 4, purpose)
        return [sum(len(k) == 1 for k, own in zip(kept, labels, strict=True) if own == c) / 200 for c in "01234"]

    by_class = shares("x", "class")
    assert np.std(by_class) > 0.1
    assert by_class == shares("y", "class")
    clients = [np.mean(shares(f"client-{i}", "client")) for i in range(200)]
    assert np.std(clients) > 0.2
    assert np.mean(clients) == pytest.approx(0.5, abs=0.06)
    assert np.std(shares("client-0", "client")) < 0.08


def test_unimodal_shares_by_modality() -> None:
    chosen = unimodal_clients(10, ["a", "b"], Missing(unimodal_clients={"a": 0.3, "b": 0.1}), seed=1)
    assert Counter(chosen.values()) == {"a": 3, "b": 1}


def write_shard(folder: Path, lines: list[Any], **info: Any) -> Path:
    folder.mkdir()
    about = {"site": "s", "classes": ["x", "y"], "modalities": ["audio", "image"]} | info
    (folder / "shard.json").write_text(json.dumps(about))
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "metadata.jsonl").write_text(text)
    return folder


def test_a_shard_made_by_hand_with_broken_files(tmp_path: Path) -> None:
    lines = [
        {"id": str(i), "label": "x", "audio_file_name": f"{i}.wav", "image_file_name": f"{i}.png"} for i in range(5)
    ]
    shard = write_shard(tmp_path / "s", [*lines, {"id": "9", "label": "y"}])
    for i in range(4):
        (shard / f"{i}.wav").write_bytes(encode_sound(np.sin(np.arange(4000) / 5).astype(np.float32), 8000))
        Picture.new("RGB", (9, 7), (i, 0, 0)).save(shard / f"{i}.png")
    (shard / "0.wav").write_bytes(b"RIFF, or so it says")
    (shard / "1.png").write_bytes((shard / "1.png").read_bytes()[:40])
    (shard / "2.wav").unlink()
    loaded = load_shard(shard)
    assert loaded.ids == ["0", "1", "2", "3"]
    assert loaded.unreadable == {"audio": 3, "image": 2}  # example 4 has neither of its files
    assert loaded.unusable == 2
    assert loaded.examples.has("audio").tolist() == [False, True, False, True]
    assert loaded.examples.has("image").tolist() == [True, False, True, True]
    assert (loaded.examples.inputs["audio"][0] == 0).all()
    assert loaded.examples.origin["image"].tolist() == [
        Origin.OBSERVED,
        Origin.MISSING,
        Origin.OBSERVED,
        Origin.OBSERVED,
    ]


def test_a_recording_that_is_not_finite_or_empty_is_unreadable(tmp_path: Path) -> None:
    lines = [{"id": str(i), "label": "x", "audio_file_name": f"{i}.wav"} for i in range(3)]
    shard = write_shard(tmp_path / "s", lines, modalities=["audio"])
    soundfile.write(shard / "0.wav", np.full(4000, np.nan), 8000, subtype="FLOAT")
    soundfile.write(shard / "1.wav", np.zeros(0), 8000)
    soundfile.write(shard / "2.wav", np.zeros((6000, 2)), 16000)
    loaded = load_shard(shard)
    assert loaded.ids == ["2"]
    assert loaded.unreadable == {"audio": 2}
    assert loaded.examples.inputs["audio"].isfinite().all()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "line 1: not JSON"),
        ("[" * 5000, "line 1: not JSON"),
        ('"text"', 'needs "id" and "label"'),
        ({"id": 1, "label": "x"}, 'needs "id" and "label"'),
        ({"id": "1", "label": "z"}, "label 'z' is not among the classes"),
        ({"id": "1", "label": "x", "image_file_name": "../outside.png"}, "leads out of the folder"),
        ({"id": "1", "label": "x", "image_file_name": "/etc/passwd"}, "leads out of the folder"),
        ({"id": "1", "label": "x", "image_file_name": "link/outside.png"}, "leads out of the folder"),
        ({"id": "1", "label": "x", "image_file_name": 3}, "is not a file name"),
        ({"id": "1", "label": "x", "image_file_name": "circle"}, "is not a file name"),
        ({"id": "\ud800", "label": "x"}, "can't encode character"),
    ],
)
def test_metadata_mistakes_name_shard_line_and_reason(line: Any, expected: str, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s", [line])
    (shard / "link").symlink_to(tmp_path)
    (shard / "circle").symlink_to("circle")
    with pytest.raises(ShardError) as caught:
        Shard.open(shard)
    assert expected in str(caught.value)
    assert str(shard) in str(caught.value)


def test_repeated_ids_empty_metadata_and_foreign_modalities_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="line 2: id '1' is used by an earlier line"):
        Shard.open(write_shard(tmp_path / "a", [{"id": "1", "label": "x"}] * 2))
    with pytest.raises(ShardError, match="no examples"):
        Shard.open(write_shard(tmp_path / "b", []))
    with pytest.raises(ShardError, match="no such folder"):
        Shard.open(tmp_path / "c")
    with pytest.raises(ShardError, match=r"shard\.json is not valid: modalities"):
        Shard.open(write_shard(tmp_path / "d", [], modalities="audio"))
    with pytest.raises(ShardError, match="it holds smell, but the model has encoders for audio, image"):
        load_shard(write_shard(tmp_path / "e", [{"id": "1", "label": "x"}], modalities=["smell"]))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
def test_any_metadata_is_read_or_refused_with_our_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    shard = write_shard(tmp_path_factory.mktemp("fuzz") / "s", [])
    (shard / "metadata.jsonl").write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        Shard.open(shard)
    except ShardError as error:
        assert str(shard) in str(error)


@pytest.mark.parametrize("name", ["shard.json", "metadata.jsonl"])
def test_metadata_that_is_a_link_out_of_the_shard_is_refused(name: str, tiny_shards: Path, tmp_path: Path) -> None:
    shard = tmp_path / "shard"
    shutil.copytree(tiny_shards / "client-1", shard)
    Shard.open(shard)
    (shard / name).rename(tmp_path / name)
    (shard / name).symlink_to(tmp_path / name)
    with pytest.raises(ShardError, match=f"file name '{name}' leads out of the folder"):
        Shard.open(shard)


def test_folders_of_generated_values_and_features_that_are_links_out_of_the_shard_are_refused(
    tiny_shards: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "shard"
    shutil.copytree(tiny_shards / "client-1", folder)
    shard, completer = Shard.open(folder), {"name": "retrieval", "source": "audio", "pool": "digits-mini"}
    assert folder_of(shard, "image", completer).is_relative_to(folder)
    (tmp_path / "outside").mkdir()
    for name in ("completed", "cache"):
        (folder / name).symlink_to(tmp_path / "outside")
    with pytest.raises(ShardError, match="leads out of the folder"):
        find_completed(shard, "image", completer)
    with pytest.raises(ShardError, match="'cache' leads out of the folder"):
        frozen_column(shard, "image", SimpleNamespace(described=str), [])  # type: ignore[arg-type]
    assert not list((tmp_path / "outside").iterdir())


def test_a_shard_reached_by_a_link_is_read(tiny_shards: Path, tmp_path: Path) -> None:
    (tmp_path / "here").symlink_to(tiny_shards / "client-1")
    assert len(Shard.open(tmp_path / "here").records) == len(Shard.open(tiny_shards / "client-1").records)


def test_validation_is_a_matter_of_the_id(tiny_shards: Path) -> None:
    loaded = load_shard(tiny_shards / "client-0")
    training, validation = loaded.split(0.3, seed=1)
    assert len(training) + len(validation) == len(loaded.ids)
    assert 0 < len(validation) < len(training)
    fewer = Loaded(loaded.examples.rows(np.s_[:20]), loaded.ids[:20], {}, 0)  # type: ignore[arg-type]
    assert len(fewer.split(0.3, seed=1)[1]) == sum(
        any((x == v).all() for v in validation.inputs["audio"]) for x in loaded.examples.inputs["audio"][:20]
    )
    assert len(loaded.split(0.0, seed=1)[1]) == 0


def test_batches_cover_everything_once(tiny_shards: Path) -> None:
    examples = load_shard(tiny_shards / "client-0").examples
    sizes = [len(batch) for batch in batches(examples, 16)]
    assert sum(sizes) == len(examples)
    assert all(size == 16 for size in sizes[:-1])


def test_the_files_of_a_shard_are_what_the_metadata_says(tiny_shards: Path) -> None:
    record = json.loads((tiny_shards / "test" / "metadata.jsonl").read_text().splitlines()[0])
    assert set(record) == {"id", "label", "audio_file_name", "image_file_name"}
    assert Picture.open(io.BytesIO((tiny_shards / "test" / record["image_file_name"]).read_bytes())).size == (
        8,
        8,
    )
    assert ShardInfo.model_validate_json((tiny_shards / "test" / "shard.json").read_bytes()).classes[3] == "3"
