"""`fedmosaic import`: own files become a shard, what does not match is named, mistakes are named at once."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets import Audio, load_dataset
from PIL import Image
from test_cli import call

from common.data.loader import load
from common.data.shard import Shard
from common.encoders.image import Image as ImageOptions
from common.encoders.spectrogram import Spectrogram
from common.encoders.text import Text

LABELS = {"a": "cat", "b": "dog", "c": "cat", "d": "dog"}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """labels.csv, and four pictures, three sounds, two notes."""
    folder = tmp_path / "files"
    for name in ("pictures", "sounds", "notes"):
        (folder / name).mkdir(parents=True)
    for index, name in enumerate(LABELS):
        Image.new("RGB", (12, 10), (50 * index, 0, 0)).save(folder / "pictures" / f"{name}.png")
    for name in "abc":
        soundfile.write(folder / "sounds" / f"{name}.WAV", np.full(4000, 0.25, np.float32), 8000)
    for name in "ab":
        (folder / "notes" / f"{name}.txt").write_text(f"\N{BYTE ORDER MARK}über {name}\n", encoding="utf-8")
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "who", "label"), *((name, "me", label) for name, label in LABELS.items())])
    return folder


def make(files: Path, *more: str, sources: tuple[str, ...] = (), out: str = "shard") -> int:
    sources = (f"image={files / 'pictures'}", f"audio={files / 'sounds'}", f"text={files / 'notes'}", *sources)
    return call("import", *sources, "--labels", files / "labels.csv", "--out", files.parent / out, *more)


def test_files_become_a_shard_that_trains(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(files, "--site", "clinic-a", "--licence", "CC0") == 0
    folder = files.parent / "shard"
    shard = Shard.open(folder)
    assert shard.info.model_dump() == {
        "site": "clinic-a",
        "task": "single-label",
        "classes": ["cat", "dog"],
        "modalities": ["audio", "image", "text"],
        "licence": "CC0",
        "kinds": {},
        "rates": {},
        "made": {"by": "fedmosaic import"},
    }
    assert [(record.id, record.label) for record in shard.records] == list(LABELS.items())
    assert [sorted([*record.files, *record.texts]) for record in shard.records] == [
        ["audio", "image", "text"],
        ["audio", "image", "text"],
        ["audio", "image"],
        ["image"],
    ]
    assert shard.records[0].texts == {"text": "über a"}
    for record in shard.records:
        assert record.files["image"].read_bytes() == (files / "pictures" / f"{record.id}.png").read_bytes()
    encoders = {
        "image": ImageOptions(size=8).build(),
        "audio": Spectrogram(seconds=0.5).build(),
        "text": Text().build(),
    }
    loaded = load(shard, encoders)
    assert loaded.unreadable == {}
    assert {m: int(loaded.examples.has(m).sum()) for m in encoders} == {"image": 4, "audio": 3, "text": 2}
    said = capsys.readouterr().out
    assert "site clinic-a, 4 examples, 3 audio, 4 image, 2 text" in said
    assert "left out" not in said
    assert sorted(path.name for path in files.parent.iterdir()) == ["files", "shard"]


def test_what_does_not_match_is_left_out_and_named(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "pictures" / "stray.png").write_bytes(b"")
    (files / "pictures" / "Thumbs.db").write_bytes(b"")
    (files / "pictures" / ".hidden").write_bytes(b"")
    (files / "notes" / "c.txt").write_bytes(b"\xfe\xfd\xfc")
    with (files / "labels.csv").open("a") as file:
        file.writelines(f"lost-{index},me,cat\n" for index in range(12))
    assert make(files) == 0
    said = capsys.readouterr().out
    assert f"left out, image without a label: {files / 'pictures' / 'stray.png'}\n" in said
    assert f"left out, image, not a file of a known kind: {files / 'pictures' / 'Thumbs.db'}\n" in said
    assert "left out, labels without a file: lost-0, lost-1," in said
    assert "lost-9, ... (12)\n" in said
    assert "left out, unreadable: 1 of 3 text values (33%)\n  c.txt: not UTF-8 text" in said
    assert "image: 4 of 5 files of" in said
    assert "hidden" not in said
    assert [record.id for record in Shard.open(files.parent / "shard").records] == list(LABELS)


def test_all_mistakes_are_named_at_once_and_nothing_is_written(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "pictures" / "a.jpg").write_bytes(b"")
    (files / "empty").mkdir()
    (files / "other").mkdir()
    (files / "other" / "007.txt").write_text("")
    with (files / "labels.csv").open("a") as file:
        file.write("a,me,cat\n,me,cat\ne,me,cow\n")
    more = (*(f"{name}={files / name}" for name in ("empty", "other", "nowhere")), "Video=x", "label=x", "odd")
    sources = (*more, f"image={files / 'notes'}")
    assert make(files, "--site", "../x", "--classes", "cat,dog", sources=sources) == 2
    found = capsys.readouterr().err
    expected = (
        "line 6: id 'a' appears twice",
        "line 7: needs an id and a label",
        "line 8: label 'cow' is not in --classes",
        "image: a.jpg and a.png in",
        f"empty: no file in {files / 'empty'} has a known ending",
        "other: no file in",
        f"nowhere: there is no folder {files / 'nowhere'}",
        "'Video' is not a valid name of a modality",
        "'label' is not a valid name of a modality",
        "'odd' is not MODALITY=DIR",
        "image has two folders",
        "'../x' is not a valid name of a site",
    )
    assert found.startswith(f"error: import: {len(expected)} mistakes\n")
    assert [mistake for mistake in expected if mistake not in found] == []
    assert sorted(path.name for path in files.parent.iterdir()) == ["files"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"name;class\na;cat\n", "must contain the columns id, label, but it is 'name;class'"),
        (b"", "must contain the columns id, label, but it is ''"),
        (b"id,label\n", "has no rows below the header"),
        (b"id,label\n\xff,cat\n", "is not UTF-8 text; it seems to be cp1252"),
        (b"id,label\na,\x81cat\n", "is not UTF-8 text; it may have the encoding of another language's Windows"),
        ("id,label\na,cat\n".encode("utf-16-le"), "must contain the columns id, label"),
        (b'id,label\n"a,cat\n', "is not a table separated by ','"),
        (b"id,Label,label \na,cat,dog\n", "column 'label' appears twice"),
        (b"PK\x03\x04...", "is a workbook of a spreadsheet program"),
    ],
)
def test_a_bad_table_of_labels(files: Path, content: bytes, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "labels.csv").write_bytes(content)
    assert make(files) == 2
    assert expected in capsys.readouterr().err


def test_classes_of_all_sites_in_their_order(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(files, "--classes", "mouse, dog,cat") == 0
    assert Shard.open(files.parent / "shard").info.classes == ["mouse", "dog", "cat"]
    assert make(files, "--classes", "dog,,dog", out="other") == 2
    assert "--classes: 'dog,,dog' is not a list of different names" in capsys.readouterr().err


def test_a_shard_is_never_overwritten(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files.parent / "shard").mkdir()
    assert make(files) == 0
    before = (files.parent / "shard" / "metadata.jsonl").stat().st_mtime_ns
    assert make(files) == 2
    assert "exists and is not empty" in capsys.readouterr().err
    assert (files.parent / "shard" / "metadata.jsonl").stat().st_mtime_ns == before


def test_a_write_that_fails_leaves_nothing_behind(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert make(files) == 2
    assert "cannot be written: No space left on device" in capsys.readouterr().err
    assert sorted(path.name for path in files.parent.iterdir()) == ["files"]


def test_a_modality_of_which_nothing_can_be_read_is_refused(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (files / "notes").iterdir():
        path.write_bytes(b"\xff")
    assert make(files) == 2
    assert "no text file can be read; the first: a.txt: not UTF-8 text" in capsys.readouterr().err
    assert sorted(path.name for path in files.parent.iterdir()) == ["files"]


def test_arrays_are_signals_and_frames(files: Path) -> None:
    for folder, shape in (("signal", (50, 3)), ("video", (2, 8, 8, 3))):
        (files / folder).mkdir()
        np.save(files / folder / "a.npy", np.zeros(shape, np.uint8))
    sources = [f"{name}={files / name}" for name in ("signal", "video")]
    assert call("import", *sources, "--labels", files / "labels.csv", "--out", files.parent / "shard") == 0
    lines = (files.parent / "shard" / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"id": "a", "label": "cat", "signal_file_name": "signal/a.npy", "video_file_name": "video/a.npy"}
    ]


@pytest.mark.parametrize("prefix", ["", "train-"])
def test_hugging_face_datasets_load_a_shard_unchanged(
    files: Path, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With docs/how-to/data-sets.md's calls. Ids that look like the names of splits are those of `fedmosaic shard`."""
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    cache = str(files.parent / "cache")
    for path in [path for path in files.rglob("*.*") if path.name != "labels.csv"]:
        path.rename(path.with_name(prefix + path.name))
    text = (files / "labels.csv").read_text()
    (files / "labels.csv").write_text("\n".join(prefix * bool(i) + line for i, line in enumerate(text.splitlines())))
    assert make(files) == 0
    folder = files.parent / "shard"
    shutil.rmtree(files)

    shard = load_dataset(
        "imagefolder", data_dir=str(folder), data_files={"train": "**"}, split="train", cache_dir=cache
    ).cast_column("audio", Audio(decode=False))
    assert shard["id"][:] == [prefix + name for name in LABELS]
    assert shard["label"][:] == list(LABELS.values())
    assert shard["text"][:] == ["über a", "über b", None, None]
    assert [example["image"].getpixel((0, 0)) for example in shard] == [(50 * i, 0, 0) for i in range(4)]
    assert [bool(example["audio"]) for example in shard] == [True, True, True, False]
    samples, rate = soundfile.read(shard[0]["audio"]["path"])
    assert rate == 8000
    assert samples == pytest.approx(np.full(4000, 0.25), abs=1e-4)

    lines = load_dataset("json", data_files=str(folder / "metadata.jsonl"), split="train", cache_dir=cache)
    assert lines[0]["audio_file_name"] == f"audio/{prefix}a.wav"
    assert (folder / lines[0]["audio_file_name"]).is_file()
