"""Loaders of real data sets, on small folders in their true layouts, and once each on the real data where they are."""

import csv
import gzip
import io
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import SHARED_DATA, experiment
from PIL import Image as Picture

from common.build import build_model
from common.config.component import build
from common.config.experiment import Natural
from common.data.loader import load
from common.data.shard import Example, Shard, ShardInfo, ShardWriter
from common.datasets.base import DataSet
from common.datasets.fashion import Fashion
from common.datasets.har import CHANNELS, Har
from common.datasets.trio_digits import WORDS, TrioDigits
from common.encoders.text import token_id, tokens
from common.errors import DataError
from common.media.values import encode_image
from common.split.make import make_shards
from common.split.partition import partition

ARTICLES = {"Shirts": 9, "Belts": 7, "Ties": 2}


def contents(examples: list[Example]) -> dict[str, dict[str, bytes]]:
    return {example.id: {m: media.read() for m, media in example.media.items()} for example in examples}


def check(source: DataSet) -> tuple[list[Example], list[Example]]:
    """What holds for every data set; its training and test part."""
    train, test = (source.examples(part, 1) for part in ("train", "test"))
    ids = [example.id for example in train + test]
    assert len(set(ids)) == len(ids)
    assert {example.label for example in train} == {example.label for example in test} == set(source.classes)
    assert {tuple(sorted(example.media)) for example in train + test} == {source.modalities}
    assert all(example.group for example in train)
    return train, test


def shared(name: str) -> str:
    """A folder of the shared data; the test is skipped where there is none."""
    if not (SHARED_DATA / name).is_dir():
        pytest.skip(f"the real data are not at {SHARED_DATA / name}")
    return str(SHARED_DATA / name)


# fashion


def write_fashion(folder: Path) -> Path:
    """Three of four products of an article are training data; product 0 of the test part is also in training."""
    rows, images = [], {}
    for article, count in ARTICLES.items():
        for i in range(count):
            name, split = f"{article.lower()}{i}", ("test", "train", "val", "train")[i % 4]
            rows.append([name, f"Acme {article}", f"Acme Men nr {i}", f"brand {i % 3}", article, split])
            images[f"{name}.jpg"] = jpeg(len(images))
    rows.append(["copy", "Acme Shirts", "Acme copy", "brand 1", "Shirts", "train"])
    images["copy.jpg"] = images["shirts0.jpg"]
    folder.mkdir(exist_ok=True)
    with (folder / "meta.tsv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerows([["id", "name", "masked", "brand", "articleType", "split"], *rows])
    with zipfile.ZipFile(folder / "images_96.zip", "w") as archive:
        for name, data in images.items():
            archive.writestr(name, data)
    return folder


def jpeg(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    Picture.fromarray(pixels).save(buffer, format="JPEG")
    return buffer.getvalue()


def fashion(folder: Path, **options: Any) -> Fashion:
    return Fashion(folder=str(folder), **{"min_per_class": 4} | options)


def test_fashion_has_the_masked_text_the_brands_and_no_test_image_in_training(tmp_path: Path) -> None:
    source = fashion(write_fashion(tmp_path))
    train, test = check(source)
    assert source.classes == ["Belts", "Shirts"]
    assert Counter(example.label for example in train) == {"Shirts": 6, "Belts": 5}
    assert {example.group for example in train} == {"brand 0", "brand 1", "brand 2"}
    values = contents(train)
    assert "copy" not in values
    assert values["shirts1"] == {"image": jpeg(1), "text": b"Acme Men nr 1"}
    assert not {v["image"] for v in values.values()} & {v["image"] for v in contents(test).values()}


def test_fashion_made_worse_is_a_matter_of_the_seed(tmp_path: Path) -> None:
    source = fashion(write_fashion(tmp_path), image_snr_db=0.0, image_pixels=8, text_drop=0.5)
    first = contents(source.examples("train", 1))
    assert first == contents(source.examples("train", 1))
    other = contents(source.examples("train", 2))
    for modality in source.modalities:
        assert {k: v[modality] for k, v in first.items()} != {k: v[modality] for k, v in other.items()}
    assert {Picture.open(io.BytesIO(value["image"])).size for value in first.values()} == {(8, 8)}
    kept = sum(len(value["text"].split()) for value in first.values())
    assert 0 < kept < 4 * len(first)
    gone = contents(fashion(tmp_path, text_drop=1.0).examples("train", 1))
    assert {value["text"] for value in gone.values()} == {b""}


def test_fashion_brands_are_dealt_out_to_fewer_clients(tmp_path: Path) -> None:
    train = fashion(write_fashion(tmp_path)).examples("train", 1)
    parts = partition([e.label for e in train], [e.group for e in train], 2, Natural(name="natural"), 1)
    brands = [{train[i].group for i in part} for part in parts]
    assert sorted(map(len, brands)) == [1, 2]
    assert not brands[0] & brands[1]


def test_shards_with_texts_are_written_and_loaded(tmp_path: Path) -> None:
    write_fashion(tmp_path / "source")
    chosen = experiment(
        data={"set": {"name": "fashion", "folder": str(tmp_path / "source"), "min_per_class": 4}, "clients": 2,
              "partition": {"name": "natural"}, "missing": {"incomplete": 0.5}},
        model__encoders={"image": {"name": "image", "size": 8, "channels": 3}, "text": {"name": "text", "length": 6}},
    )  # fmt: skip
    folder = make_shards(chosen, tmp_path / "shards")[0]
    assert "source" not in (folder / "shard.json").read_text()  # where the source lay is nobody's business
    model = build_model(chosen, 2)
    loaded = load(Shard.open(folder), {m: model.encoder(m) for m in model.modalities})
    assert not any(loaded.unreadable.values())
    ids, has = loaded.examples.inputs["text"], loaded.examples.has("text")
    assert ids.shape == (len(loaded.ids), 6)
    assert ids.dtype == torch.int64
    assert 0 < has.sum() < len(has)
    assert (ids[has] != 0).any(dim=1).all()
    assert not ids[~has].any()
    for found in [loaded.examples, loaded.examples.only(["image"]), loaded.examples.only(["text"])]:
        assert model.predict(found).isfinite().all()


def test_broken_fashion_sources_are_named(tmp_path: Path) -> None:
    table, archive = tmp_path / "meta.tsv", tmp_path / "images_96.zip"
    with pytest.raises(DataError, match=r"meta\.tsv cannot be read"):
        fashion(tmp_path).examples("train", 1)
    write_fashion(tmp_path)
    good_table, good_archive = table.read_bytes(), archive.read_bytes()
    for bad, expected in {
        good_table.replace(b"\tmasked\t", b"\tother\t"): "no column masked",
        good_table.replace(b"\tval\n", b"\tdev\n"): "line 4: not a product",
        good_table + b"cut\tshort\n": "line 21: not a product",
        good_table + b"\xff\n": "cannot be read",
    }.items():
        table.write_bytes(bad)
        with pytest.raises(DataError, match=expected) as caught:
            fashion(tmp_path).examples("train", 1)
        assert str(tmp_path) in str(caught.value)
    table.write_bytes(good_table)
    for data in (good_archive[: len(good_archive) // 2], b""):
        archive.write_bytes(data)
        with pytest.raises(DataError, match=r"images_96\.zip cannot be read"):
            fashion(tmp_path).examples("train", 1)
    archive.unlink()
    with pytest.raises(DataError, match=r"images_96\.zip cannot be read"):
        _ = fashion(tmp_path).classes


def test_absent_and_damaged_fashion_images_are_counted_as_missing(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    with zipfile.ZipFile(tmp_path / "images_96.zip") as archive:
        images = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "images_96.zip", "w", zipfile.ZIP_STORED) as archive:
        for name, data in images.items():
            if name != "belts2.jpg":
                archive.writestr(name, b"not a picture" if name == "belts1.jpg" else data)
    damaged = bytearray((tmp_path / "images_96.zip").read_bytes())
    damaged[damaged.index(images["belts3.jpg"]) + 200] ^= 0xFF
    (tmp_path / "images_96.zip").write_bytes(damaged)
    examples = {example.id: example for example in fashion(tmp_path, image_pixels=4).examples("train", 1)}
    for name in ("belts1", "belts2", "belts3"):
        with pytest.raises((ValueError, OSError)):
            examples[name].media["image"].read()
        assert examples[name].media["text"].read()
    info = ShardInfo(site="x", classes=fashion(tmp_path).classes, modalities=["image", "text"])
    written = ShardWriter(tmp_path / "shard", info).write(examples.values())
    assert written.unreadable == {"image": 3}


def test_the_real_fashion_products() -> None:
    train, test = check(source := Fashion(folder=shared("fashion")))
    assert (len(source.classes), len(train), len(test)) == (26, 5157, 1309)
    sizes = [
        len(p) for p in partition([e.label for e in train], [e.group for e in train], 10, Natural(name="natural"), 1)
    ]
    assert sum(sizes) == len(train)
    assert min(sizes) > 100


# har


def write_har(folder: Path, **changes: Any) -> Path:
    """Two subjects with 4 executions and one with a single one; in each execution 3 s of rest and 3 s of walking."""
    labels = np.repeat([0, 1], 150)
    subjects = np.array([1] * 4 + [2] * 4 + [3], dtype=np.int16)
    total = 300 * len(subjects)
    table: dict[str, Any] = {
        "x": np.arange(total * 12, dtype=np.float32).reshape(total, 12),
        "y": np.stack([np.tile(labels, len(subjects))] * 2, axis=1).astype(np.int8),
        "offset": np.arange(0, total + 1, 300),
        "subject": subjects,
        "execution": np.array([f"s{s:02d}_{i:02d}" for i, s in enumerate(subjects)]),
        "labels": np.array(["REST", "WALKING"]),
        "channels": np.array([name for names in CHANNELS.values() for name in names]),
    }
    folder.mkdir(exist_ok=True)
    np.savez(folder / "signals_50hz.npz", **{k: v for k, v in (table | changes).items() if v is not None})
    return folder


def test_har_windows_lie_in_one_execution_and_no_sample_is_in_both_parts(tmp_path: Path) -> None:
    source = Har(folder=str(write_har(tmp_path)), seconds=1.0, stride_seconds=0.5)
    train, test = check(source)
    assert source.modalities == ("phone_acc", "phone_gyro", "watch_acc", "watch_gyro")
    assert {e.id.split("-")[0] for e in test} == {"s01_03", "s02_07"}
    assert Counter(e.group for e in train) == {"subject-01": 30, "subject-02": 30, "subject-03": 10}
    seen: dict[str, set[float]] = {"train": set(), "test": set()}
    for part, examples in (("train", train), ("test", test)):
        for example in examples:
            window = np.load(io.BytesIO(example.media["phone_acc"].read()))
            assert window.shape == (50, 3)
            assert window.dtype == np.float32
            rows = window[:, 0] / 12
            assert (np.diff(rows) == 1).all()
            assert rows[0] // 300 == rows[-1] // 300
            seen[part] |= set(rows.tolist())
    assert not seen["train"] & seen["test"]
    assert contents(train) == contents(source.examples("train", 2))


def test_har_channels_go_to_their_sensor_by_name(tmp_path: Path) -> None:
    names = [name for names in CHANNELS.values() for name in names][::-1]
    source = Har(folder=str(write_har(tmp_path, channels=np.array(names))))
    window = np.load(io.BytesIO(source.examples("train", 1)[0].media["watch_gyro"].read()))
    assert window[0].tolist() == [2.0, 1.0, 0.0]


def test_har_windows_of_two_activities_or_on_which_the_devices_differ_are_left_out(tmp_path: Path) -> None:
    write_har(tmp_path)
    starts = [e.id.split("-")[1] for e in Har(folder=str(tmp_path), stride_seconds=0.1, purity=0.9).examples("test", 1)]
    assert "00100" in starts  # all rest
    assert "00105" in starts  # 45 of 50 samples
    assert not {"00110", "00140"} & set(starts)
    assert "00145" in starts
    y = np.zeros((2700, 2), dtype=np.int8)
    y[:, 1] = 1
    assert Har(folder=str(write_har(tmp_path, y=y))).examples("train", 1) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"subject": None}, "has no subject"),
        ({"y": np.zeros((5, 2), np.int8)}, "do not belong together"),
        ({"y": np.full((2700, 2), 7, np.int8)}, "some labels have no name"),
        ({"x": np.full((2700, 12), np.nan, np.float32)}, "not finite"),
        ({"offset": np.array([0, 10])}, "offset does not divide"),
        ({"subject": np.zeros(2, np.int16)}, "9 executions, but 2 subjects"),
        ({"channels": np.array(["a"] * 12)}, "no channel phone_ax"),
        ({"labels": np.array(["REST", None])}, "cannot be read"),
    ],
)
def test_broken_har_sources_are_named(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=expected) as caught:
        Har(folder=str(write_har(tmp_path, **changes))).examples("train", 1)
    assert "signals_50hz.npz" in str(caught.value)


def test_absent_or_cut_har_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"signals_50hz\.npz cannot be read"):
        _ = Har(folder=str(tmp_path)).classes
    path = write_har(tmp_path) / "signals_50hz.npz"
    for data in (b"", b"text", path.read_bytes()[:900], path.read_bytes()[:-900]):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"signals_50hz\.npz cannot be read"):
            Har(folder=str(tmp_path)).examples("train", 1)


def test_the_real_activities() -> None:
    train, test = check(Har(folder=shared("har")))
    assert (len(train), len(test)) == (4610, 1214)
    assert len({e.group for e in train}) == len({e.group for e in test}) == 18
    assert not {e.id.split("-")[0] for e in train} & {e.id.split("-")[0] for e in test}
    assert min(Counter(e.label for e in test).values()) > 50


# trio-digits


def write_digits(folder: Path) -> dict[str, str]:
    """Two images and recordings of every digit in each part, as MNIST and the Free Spoken Digit Dataset have them."""
    for name in ("mnist", "fsdd"):
        (folder / name).mkdir()
    labels = np.tile(np.arange(10, dtype=np.uint8), 2)
    for prefix, seed in (("train", 0), ("t10k", 1)):
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 28, 28), dtype=np.uint8)
        for kind, values in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
            (folder / "mnist" / f"{prefix}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + values.tobytes()))
    for digit in range(10):
        for take in (0, 1, 7, 8):
            wave = np.sin(np.arange(800) * (digit + 1) / 9).astype(np.float32) / 2
            soundfile.write(folder / "fsdd" / f"{digit}_ann_{take}.wav", wave, 8000)
    return {name: str(folder / name) for name in ("mnist", "fsdd")}


def test_trio_digits_are_av_digits_with_words(tmp_path: Path) -> None:
    folders = write_digits(tmp_path)
    source = TrioDigits(**folders)  # type: ignore[arg-type]
    train, test = check(source)
    assert len(train) == len(test) == 20
    for example in train + test:
        assert example.media["text"].read().decode() in {words[int(example.label)] for words in WORDS.values()}
    pairs = build("data set", {"name": "av-digits", **folders}).examples("train", 1)
    without = {name: {m: v for m, v in value.items() if m != "text"} for name, value in contents(train).items()}
    assert without == contents(pairs)
    assert contents(train) == contents(source.examples("train", 1))
    texts = [{v["text"] for v in contents(source.examples("train", seed)).values()} for seed in (1, 2)]
    assert texts[0] != texts[1]


def test_trio_digits_words_with_noise_keep_their_language_and_length(tmp_path: Path) -> None:
    folders = write_digits(tmp_path)
    clear, noisy, lost = (
        [
            example.media["text"].read().decode()
            for example in TrioDigits(**folders, text_noise=noise).examples("train", 1)  # type: ignore[arg-type]
        ]
        for noise in (0.0, 0.3, 1.0)
    )
    assert [len(word) for word in clear] == [len(word) for word in noisy] == [len(word) for word in lost]
    same = [
        sum(a == b for own, now in zip(clear, words, strict=True) for a, b in zip(own, now, strict=True))
        for words in (noisy, lost)
    ]
    total = sum(map(len, clear))
    assert 0.5 * total < same[0] < 0.9 * total
    assert same[1] < 0.2 * total


def test_no_word_stands_for_two_digits() -> None:
    meanings = {(word, digit) for words in WORDS.values() for digit, word in enumerate(words)}
    assert len(meanings) == len({word for word, _ in meanings})
    assert all(len(words) == 10 for words in WORDS.values())


def test_broken_digit_sources_are_named(tmp_path: Path) -> None:
    folders = write_digits(tmp_path)
    next((tmp_path / "mnist").glob("train-images*")).write_bytes(b"no archive")
    with pytest.raises(DataError, match="train-images"):
        TrioDigits(**folders).examples("train", 1)  # type: ignore[arg-type]


def test_the_real_digits_with_words() -> None:
    train, test = check(TrioDigits(mnist=shared("mnist"), fsdd=shared("fsdd")))
    assert (len(train), len(test)) == (2250, 250)


# their encoders


HASHES = [57, 564, 297]


def test_hashes_are_the_same_everywhere() -> None:
    assert [token_id(token, 2048) for token in ("nike", "<ni", "fünf")] == HASHES
    ids = build("encoder", {"name": "text", "length": 4}).build().prepare("NIKE, nike?")
    assert ids.tolist() == [HASHES[0], HASHES[0], 0, 0]


def test_tokens() -> None:
    assert tokens("Nike T-Shirt 7", None) == ["nike", "t", "shirt", "7"]
    assert tokens("One a", 3) == ["<on", "one", "ne>", "<a>"]
    assert tokens("a", 9) == ["<a>"]
    assert tokens(" ?! ", 3) == []
    long = build("encoder", {"name": "text", "length": 3}).build().prepare("one two three four")
    assert long.tolist() == [token_id(word, 2048) for word in ("one", "two", "three")]


def test_the_text_encoder_ignores_padding() -> None:
    short, long = (build("encoder", {"name": "text", "length": length, "width": 8}).build() for length in (4, 40))
    long.load_state_dict(short.state_dict())
    with torch.no_grad():
        for encoder in (short, long):
            encoder.embedding.weight[0] = 5.0  # as a careless sender might have it
        texts = ["one two three", "four"]
        features = [encoder(torch.stack([encoder.prepare(text) for text in texts])) for encoder in (short, long)]
    assert torch.allclose(*features, atol=1e-6)


@pytest.mark.parametrize(("name", "raw"), [("text", "one two two"), ("signal", np.ones((50, 3), np.float32))])
def test_training_steps_repeat_bit_for_bit(name: str, raw: Any) -> None:
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        encoder = build("encoder", {"name": name, "width": 8}).build()
        inputs = torch.stack([encoder.prepare(raw)] * 5 + [encoder.blank()])
        step = torch.optim.SGD(encoder.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            step.zero_grad()
            encoder(inputs).square().sum().backward()
            step.step()
        results.append(torch.cat([value.detach().flatten() for value in encoder.parameters()]))
    assert torch.equal(*results)
    assert results[0].isfinite().all()


def test_signals_keep_their_level_and_only_one_shape_is_taken() -> None:
    encoder = build("encoder", {"name": "signal", "channels": 2, "length": 10, "scale": 4.0}).build()
    window = np.arange(20, dtype=np.float64).reshape(10, 2)
    prepared = encoder.prepare(window)
    assert prepared.dtype == torch.float32
    assert prepared[1].tolist() == [(2 * i + 1) / 4 for i in range(10)]
    for shape in ((2, 10), (10,), (10, 3)):
        with pytest.raises(ValueError, match=r"a signal \[samples, 2 channels\] is needed, not \["):
            encoder.prepare(np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match="a window of 10 samples is needed, not of 9"):
        encoder.prepare(np.zeros((9, 2), np.float32))
    with pytest.raises(ValueError, match="an array of real numbers is needed, not str"):
        encoder.prepare("text")


def test_an_image_is_not_a_text() -> None:
    picture = Picture.open(io.BytesIO(encode_image(np.zeros((4, 4), np.uint8))))
    with pytest.raises(ValueError, match="a text is needed, not PngImageFile"):
        build("encoder", {"name": "text"}).build().prepare(picture)
