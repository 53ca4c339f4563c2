"""`fedmosaic inspect`: what it counts, and a page that shows data of a site without doing any harm."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image
from test_cli import call
from test_report import Page

from common.data.completed import folder_of
from common.data.shard import Shard
from common.media.values import Raw, Value
from deploy.shards.inspection.drawing import LETTERS, encoded, thumbnail
from deploy.shards.inspection.gallery import MOST_PER_CLASS, MOST_VALUES, choose

EVIL = '<script>alert("&")</script>'
RECIPE = {"name": "retrieval", "source": "image", "model": "tiny"}


def write_shard(folder: Path, lines: list[dict[str, Any]], **info: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    given = {"site": "clinic-a", "classes": ["cat", "dog", "cow"], "modalities": ["audio", "image", "text"], **info}
    (folder / "shard.json").write_text(json.dumps(given))
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """Five examples: two broken files and one file that is not there, one generated text of two."""
    folder = tmp_path / "shard"
    (folder / "m").mkdir(parents=True)
    Image.new("RGB", (300, 200), "red").save(folder / "m" / "a.png")
    Image.new("L", (8, 8), 200).save(folder / "m" / "b.png")
    (folder / "m" / "c.png").write_bytes(b"no picture")
    soundfile.write(folder / "m" / "a.wav", np.sin(np.arange(4000, dtype=np.float32)), 8000)
    soundfile.write(folder / "m" / "b.wav", np.zeros((8000, 2), np.float32), 8000)
    (folder / "m" / "d.wav").write_bytes(b"")
    lines = [
        {"id": "a", "label": "cat", "image_file_name": "m/a.png", "audio_file_name": "m/a.wav", "text": EVIL},
        {"id": "b", "label": "dog", "image_file_name": "m/b.png", "audio_file_name": "m/b.wav"},
        {"id": "c", "label": "cat", "image_file_name": "m/c.png", "text": "two words"},
        {"id": "d", "label": "cat", "audio_file_name": "m/d.wav"},
        {"id": "e", "label": "dog", "image_file_name": "m/none.png", "text": "x" * 1000},
    ]
    write_shard(folder, lines, licence="CC0 & more", made={"by": EVIL})
    completed = folder_of(Shard.open(folder), "text", RECIPE)
    completed.mkdir(parents=True)
    (completed / "recipe.json").write_text(json.dumps(RECIPE))
    made = [{"id": "b", "value": "made up"}, {"id": "c", "value": "never used"}, {"id": "d", "rejected": "score"}]
    (completed / "completed.jsonl").write_text("".join(json.dumps(line) + "\n" for line in made))
    return folder


def inspected(folder: Path, capsys: pytest.CaptureFixture[str], *more: str | Path) -> dict[str, Any]:
    assert call("inspect", folder, "--json", *more) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_what_is_counted(shard: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = inspected(shard, capsys)
    assert found["examples"] == 5
    assert (found["site"], found["licence"], found["made"]) == ("clinic-a", "CC0 & more", {"by": EVIL})
    assert found["classes"] == {
        "cat": {"examples": 3, "audio": 1, "image": 1, "text": 2},
        "dog": {"examples": 2, "audio": 1, "image": 1, "text": 1},
        "cow": {"examples": 0, "audio": 0, "image": 0, "text": 0},
    }
    assert found["patterns"] == {"nothing": 1, "text": 2, "audio+image": 1, "audio+image+text": 1}
    assert found["generated"] == [{"modality": "text", "completer": RECIPE, "values": 2, "rejected": 1, "failed": 0}]
    assert [(broken["id"], broken["modality"], broken["file"]) for broken in found["broken"]] == [
        ("c", "image", "m/c.png"),
        ("d", "audio", "m/d.wav"),
        ("e", "image", "m/none.png"),
    ]
    assert "cannot identify image" in found["broken"][0]["reason"]
    assert "No such file" in found["broken"][2]["reason"]
    assert found["modalities"]["audio"] == {
        "values": 2,
        "forms": {"sound, 8000 Hz, 1 channel": 1, "sound, 8000 Hz, 2 channels": 1},
        "constant": 1,
        "conflicting": [],
        "unit": "seconds",
        "shortest": 0.5,
        "longest": 1.0,
        "lowest": -1.0,
        "highest": pytest.approx(1.0, abs=1e-3),
    }
    assert found["modalities"]["text"] | {"forms": {}} == {
        "values": 3, "forms": {}, "constant": 0, "conflicting": [], "unit": "words", "shortest": 1, "longest": 2
    }  # fmt: skip
    said = "\n".join(found["attention"])
    assert "1 of 3 audio values are silent, blank or constant" in said
    assert "2 of 4 image values are silent, blank or constant" in said
    assert "2 of 4 image values (50%) cannot be read" in said
    assert "its audio has several forms: 1 x 'sound, 8000 Hz, 1 channel', 1 x 'sound, 8000 Hz, 2 channels'" in said


def test_the_tables(shard: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shard / "shard.json").write_text((shard / "shard.json").read_text().replace("clinic-a", "[red]\\u001b[31m"))
    assert call("inspect", shard) == 0
    said = capsys.readouterr().out
    assert "site [red]·[31m: 5 examples of 3 classes" in said
    assert "\x1b" not in said
    assert re.search(r"audio\+image\+text +│ +1 │ +20.0%", said)
    assert re.search(r"cat +│ +3 │ +1 │ +1 │ +2 ", said)
    assert "generated text by retrieval tiny: 2 values, 1 rejected, 0 failed" in said
    assert "3 broken files, which count as missing:" in said
    assert "m/c.png: cannot identify image" in said
    assert "more;" not in said


def test_the_page_shows_examples_and_cannot_do_anything(shard: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = shard.parent / "page.html"
    assert call("inspect", shard, "--out", target) == 0
    assert f"page with examples, keep it at the site: {target}" in capsys.readouterr().out
    source = target.read_text()
    page = Page(source)
    assert "script" not in page.tags
    assert not re.search(r"\son\w+=", source)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in source
    assert page.references
    assert all(reference.startswith("data:image/") for reference in page.references)
    assert "Keep this page at the site." in page.text
    assert EVIL in page.text
    assert "CC0 & more" in page.text
    assert "x" * (LETTERS - 1) + "…" in page.text
    assert "x" * LETTERS not in page.text
    assert page.text.count("broken: ") == 3
    cards = {re.search(r'"id">(.)<', card)[1]: card for card in re.findall(r"<article.*?</article>", source)}
    assert cards.keys() == {"a", "b", "c", "d", "e"}
    assert "made up" in cards["b"]
    assert "generated" in cards["b"]
    assert "never used" not in source
    assert sum("generated</span>" in card for card in cards.values()) == 1
    assert cards["d"].count("missing") == 2
    pictures = [Image.open(io.BytesIO(base64.b64decode(ref.split(",")[1]))) for ref in page.references]
    assert sorted(picture.size for picture in pictures)[:2] == [(8, 8), (160, 107)]
    assert len(pictures) == 4


def test_all_mistakes_of_the_metadata_with_their_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"id": "same", "label": "cat" if number % 2 else "bat", "text": "x"} for number in range(30)]
    folder = write_shard(tmp_path / "shard", lines)
    assert call("inspect", folder, "--out", tmp_path / "page.html") == 2
    found = capsys.readouterr().err
    for number in (*range(1, 31, 2), *range(4, 31, 2)):
        assert f"line {number}: " in found
    assert "line 2: " not in found
    assert "more" not in found
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        ("page.txt", "does not end in .html"),
        ("nowhere/page.html", "there is no folder"),
        ("folder.html", "is a folder"),
    ],
)
def test_a_page_that_cannot_be_written(
    shard: Path, out: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (shard.parent / "folder.html").mkdir()
    assert call("inspect", shard, "--out", shard.parent / out) == 2
    assert expected in capsys.readouterr().err


def test_generated_values_that_are_no_such_thing(shard: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = next(shard.glob("completed/*/recipe.json"))
    recipe.write_text("[]")
    assert call("inspect", shard) == 2
    assert "recipe.json is not a mapping" in capsys.readouterr().err
    recipe.write_text("{")
    assert call("inspect", shard) == 2
    (recipe.parent / "completed.jsonl").write_text(json.dumps({"id": "b", "file_name": "../../../x.png"}) + "\n")
    recipe.write_text("{}")
    assert call("inspect", shard) == 2
    assert "leads out of the folder" in capsys.readouterr().err


def test_signals_frames_and_other_arrays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "shard"
    (folder / "m").mkdir(parents=True)
    frames = np.stack([np.full((40, 60, 3), 60 * i, np.uint8) for i in range(5)])
    arrays = {"signal": np.ones((50, 3)), "video": frames, "cube": np.ones((2, 3, 4)), "row": np.arange(7)}
    for name, array in arrays.items():
        np.save(folder / "m" / f"{name}.npy", array)
    line = {"id": "1", "label": "cat", **{f"{name}_file_name": f"m/{name}.npy" for name in arrays}}
    write_shard(folder, [line], modalities=list(arrays))
    found = inspected(folder, capsys, "--out", tmp_path / "page.html")
    forms = {name: (next(iter(about["forms"])), about["longest"]) for name, about in found["modalities"].items()}
    assert forms == {
        "signal": ("signal, 3 channels", 50),
        "video": ("frames, 60 × 40", 5),
        "cube": ("array, 2 × 3 × 4", 24),
        "row": ("signal, 1 channel", 7),
    }
    page = Page((tmp_path / "page.html").read_text())
    assert "array, 2 × 3 × 4" in page.text
    strip = Image.open(io.BytesIO(base64.b64decode(page.references[2].split(",")[1])))
    assert strip.size == (4 * 60 + 3 * 2, 40)
    shades = [strip.getpixel((62 * i + 30, 20))[0] for i in range(4)]
    assert shades == pytest.approx([0, 60, 180, 240], abs=3)


def test_thumbnails() -> None:
    photograph = Image.fromarray(np.random.default_rng(1).integers(0, 255, (500, 1000, 3), dtype=np.uint8))
    kind, data = encoded(thumbnail(photograph, 160))
    assert (kind, Image.open(io.BytesIO(data)).size) == ("image/jpeg", (160, 80))
    for mode in ("1", "P", "LA", "RGBA", "I;16", "CMYK", "F"):
        assert thumbnail(Image.new(mode, (20, 10)), 160).mode == "RGB"


def test_the_choice_of_examples_is_seeded_few_and_varied(tmp_path: Path) -> None:
    full, rare = {"text": "x", "note": "y"}, {"text": "x"}
    lines = [
        {"id": f"{label}-{n}", "label": label, **(rare if n == 17 else full)} for label in "abcd" for n in range(100)
    ]
    opened = Shard.open(write_shard(tmp_path / "shard", lines, classes=list("abcd"), modalities=["note", "text"]))
    chosen = choose(opened)
    assert chosen == choose(opened)
    assert [name[0] for name in chosen] == [label for label in "abcd" for _ in range(MOST_PER_CLASS)]
    assert {f"{label}-17" for label in "abcd"} < set(chosen)
    many = [str(number) for number in range(500)]
    lines = [{"id": name, "label": name, "text": "x"} for name in many]
    opened = Shard.open(write_shard(tmp_path / "many", lines, classes=many, modalities=["note", "text"]))
    assert len(choose(opened)) == MOST_VALUES // 2


def test_a_large_shard_is_read_once_and_gives_a_page_below_2_mb(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "shard"
    (folder / "m").mkdir(parents=True)
    noise = np.random.default_rng(1)
    for number in range(100):
        Image.fromarray(noise.integers(0, 255, (100, 100, 3), dtype=np.uint8)).save(folder / "m" / f"{number}.jpg")
        soundfile.write(folder / "m" / f"{number}.wav", noise.uniform(-1, 1, 8000), 8000)
    lines = [
        {
            "id": str(number),
            "label": f"class {number % 40}",
            "image_file_name": f"m/{number % 100}.jpg",
            "audio_file_name": f"m/{number % 100}.wav" if number % 8 else "m/gone.wav",
            "text": "word " * 200,
        }
        for number in range(1_800)
    ]
    write_shard(folder, lines, classes=[f"class {number}" for number in range(40)])
    read, reads = Value.read, list[Value]()

    def noted(value: Value) -> Raw:
        reads.append(value)
        return read(value)

    monkeypatch.setattr(Value, "read", noted)
    found = inspected(folder, capsys, "--out", tmp_path / "page.html")
    assert len(reads) == 3 * 1_800
    assert len(found["broken"]) == 225
    assert (tmp_path / "page.html").stat().st_size < 2_000_000
    assert "and 25 more" in Page((tmp_path / "page.html").read_text()).text
