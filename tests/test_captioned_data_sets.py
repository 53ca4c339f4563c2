"""The data sets of the FedMVP paper, from small folders in their original layouts."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture
from scipy.io import savemat
from test_paper_data_sets import IMAGE_TEXT, lines_of, paper
from test_shards import fingerprint

from common.config.component import build
from common.data.shard import Example, Shard
from common.datasets.flowers_102 import CLASSES
from common.errors import DataError
from common.split.make import make_shards

SPECIES = ["001.Black_footed_Albatross", "009.Brewer_Blackbird", "022.Chuck_will_Widow"]
EACH = 14
CUB, FLOWERS = len(SPECIES) * EACH, 43
"""How many images the folders have: a tenth is 4 of both."""


def write_image(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.new("RGB", (20, 12), (5 * number, 0, 255 - number)).save(path, quality=95)


def write_captions(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"caption {line}  of picture {number} .\n" for line in range(10)) + "\n")


def write_cub(folder: Path, captions: str = "text_c10") -> Path:
    """42 images of 3 species; the captions have an earlier name of the second. The official test part has 4 of each."""
    root = folder / "CUB_200_2011"
    images, labels, split = [], [], []
    for index in range(CUB):
        name, number = SPECIES[index // EACH], index + 1
        stem = f"{name[4:].title()}_{index % EACH + 1:04d}_{700 + index}"
        write_image(root / "images" / name / f"{stem}.jpg", number)
        earlier = (name.replace("Brewer", "Brewers"), stem.replace("Brewer", "Brewers"))
        write_captions(folder / captions / earlier[0] / f"{earlier[1]}.txt", number)
        images.append(f"{number} {name}/{stem}.jpg")
        labels.append(f"{number} {index // EACH + 1}")
        split.append(f"{number} {int(index % EACH < EACH - 4)}")
    classes = [f"{number} {name}" for number, name in enumerate(SPECIES, start=1)]
    for name, lines in (
        ("images", images), ("image_class_labels", labels), ("train_test_split", split), ("classes", classes)
    ):  # fmt: skip
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_flowers(folder: Path, captions: str = "text_c10") -> Path:
    """43 images, the first 22 of the last category, the others of the first."""
    labels = [102] * 22 + [1] * 21
    for number, label in enumerate(labels, start=1):
        write_image(folder / "jpg" / f"image_{number:05d}.jpg", number)
        write_captions(folder / captions / f"class_{label:05d}" / f"image_{number:05d}.txt", number)
    savemat(folder / "imagelabels.mat", {"labels": np.array([labels], np.uint8)}, do_compression=True)
    parts = {"trnid": range(1, 6), "valid": range(23, 28), "tstid": [*range(6, 23), *range(28, FLOWERS + 1)]}
    savemat(folder / "setid.mat", {key: np.array([list(value)], np.uint16) for key, value in parts.items()})
    return folder


WRITERS = {"cub-200": write_cub, "flowers-102": write_flowers}
SETS = pytest.mark.parametrize("name", WRITERS)


def source(name: str, folder: Path, **options: Any) -> Any:
    return build("data set", {"name": name, "folder": str(folder), **options})


def parts_of(made: Any, seed: int = 1) -> tuple[list[Example], list[Example]]:
    return made.examples("train", seed), made.examples("test", seed)


def picture_of(folder: Path, example: Example) -> Path:
    return next(folder.rglob(f"{example.id}.jpg"))


def text_of(example: Example) -> str:
    return example.media["text"].read().decode()


@SETS
class TestBoth:
    def test_a_tenth_is_held_out_of_every_class_whatever_the_seed(self, name: str, tmp_path: Path) -> None:
        made = source(name, WRITERS[name](tmp_path))
        train, test = parts_of(made)
        count = CUB if name == "cub-200" else FLOWERS
        assert [len(train), len(test)] == [count - 4, 4]
        assert len({example.id for example in train + test}) == count
        assert len({example.label for example in test}) == (3 if name == "cub-200" else 2)
        assert {example.label for example in train} <= set(made.classes)
        assert [example.id for example in test] == [example.id for example in made.examples("test", seed=2)]

    def test_an_image_has_its_own_captions_and_one_of_them_by_seed(self, name: str, tmp_path: Path) -> None:
        made = source(name, WRITERS[name](tmp_path))
        train, _ = parts_of(made)
        for example in train:
            number = round(np.asarray(Picture.open(picture_of(tmp_path, example)))[..., 0].mean() / 5)
            assert text_of(example).endswith(f" of picture {number} .")
        chosen = [[text_of(example) for example in made.examples("train", seed)] for seed in (1, 1, 2)]
        assert chosen[0] == chosen[1] != chosen[2]
        assert len(Counter(text.split()[1] for text in chosen[0])) > 5

    def test_shards(self, name: str, tmp_path: Path) -> None:
        WRITERS[name](tmp_path / "set")
        train, test = parts_of(source(name, tmp_path / "set"))
        picture_of(tmp_path / "set", train[0]).write_bytes(picture_of(tmp_path, train[0]).read_bytes()[:200])
        picture_of(tmp_path / "set", train[1]).unlink()
        picture_of(tmp_path / "set", test[0]).write_text("no picture")
        lost = text_of(train[2]).split("picture")[1]
        for path in (tmp_path / "set").rglob("*.txt"):
            if f"picture{lost}" in path.read_text():
                path.write_text(" \n")
        chosen = paper({"name": name, "folder": str(tmp_path / "set")}, IMAGE_TEXT)
        made = make_shards(chosen, tmp_path / "shards")
        make_shards(chosen, tmp_path / "again")
        assert fingerprint(tmp_path / "shards") == fingerprint(tmp_path / "again")
        lines = {line["id"]: (folder, line) for folder in made for line in lines_of(folder)}
        assert set(lines) == {example.id for example in train}
        for example in train[:2]:
            assert set(lines[example.id][1]) == {"id", "label", "text"}
        assert set(lines[train[2].id][1]) == {"id", "label", "image_file_name"}
        folder, line = lines[train[3].id]
        assert line["text"].startswith("caption ")
        assert (folder / line["image_file_name"]).read_bytes() == picture_of(tmp_path / "set", train[3]).read_bytes()
        infos = [json.loads((folder / "shard.json").read_text()) for folder in made]
        assert [sum(i["made"].get("unreadable", {}).get(m, 0) for i in infos) for m in ("image", "text")] == [2, 1]
        info = Shard.open(tmp_path / "shards" / "test").info
        assert info.made["unreadable"] == {"image": 1}
        assert info.made["data_set"] == {"name": name, "split": "ninety-ten"}
        assert info.kinds == dict.fromkeys(info.classes, "bird" if name == "cub-200" else "flower")

    @pytest.mark.parametrize("split", ["official", "ninety-ten"])
    def test_no_picture_is_in_both_parts(self, name: str, split: str, tmp_path: Path) -> None:
        made = source(name, WRITERS[name](tmp_path), split=split)
        train, test = parts_of(made)
        assert not {example.id for example in train} & {example.id for example in test}
        picture_of(tmp_path, train[5]).write_bytes(picture_of(tmp_path, test[0]).read_bytes())
        left, held_out = parts_of(made)
        assert [example.id for example in left] == [example.id for example in train if example.id != train[5].id]
        assert [example.id for example in held_out] == [example.id for example in test]

    def test_captions_may_have_lost_characters(self, name: str, tmp_path: Path) -> None:
        WRITERS[name](tmp_path)
        for path in tmp_path.glob("text_c10/*/*.txt"):
            path.write_bytes(b"the bird\xef\xbf\xbd\xef\xbf\xbds bill is\x96 short .\r\n")
        assert {text_of(example) for example in parts_of(source(name, tmp_path))[0]} == {"the bird s bill is short ."}


@pytest.mark.parametrize(
    ("name", "captions"),
    [
        *(("cub-200", layout) for layout in ("birds/text_c10", "cvpr2016_cub/text_c10", "captions")),
        *(("flowers-102", layout) for layout in ("flowers/text_c10", "cvpr2016_flowers/text_c10", "captions")),
    ],
)
def test_captions_where_they_are_unpacked(name: str, captions: str, tmp_path: Path) -> None:
    assert text_of(source(name, WRITERS[name](tmp_path, captions)).examples("test", seed=1)[0])


class TestCub200:
    def test_names_as_prompts_want_them(self, tmp_path: Path) -> None:
        made = source("cub-200", write_cub(tmp_path))
        assert made.classes == ["Black footed Albatross", "Brewer Blackbird", "Chuck will Widow"]

    def test_the_official_split(self, tmp_path: Path) -> None:
        train, test = parts_of(source("cub-200", write_cub(tmp_path), split="official"))
        assert Counter(example.label for example in train) == dict.fromkeys(
            ["Black footed Albatross", "Brewer Blackbird", "Chuck will Widow"], 10
        )
        assert [example.id[-3:] for example in test[:4]] == ["710", "711", "712", "713"]

    def test_the_folder_may_be_the_one_of_the_images(self, tmp_path: Path) -> None:
        root = write_cub(tmp_path) / "CUB_200_2011"
        (tmp_path / "text_c10").rename(root / "text_c10")
        assert source("cub-200", root).examples("test", seed=1)

    @pytest.mark.parametrize(
        ("name", "content", "expected"),
        [
            ("images.txt", None, r"cub-200: no images\.txt in "),
            ("images.txt", "", r"images\.txt is empty"),
            ("images.txt", "1 ../../etc/passwd\n", r"images\.txt: '\.\./\.\./etc/passwd' does not have the form class"),
            ("images.txt", "001.Crow/a.jpg\n", r"'001\.Crow/a\.jpg' is not a number and a value"),
            ("image_class_labels.txt", None, r"image_class_labels\.txt cannot be read: No such file"),
            ("image_class_labels.txt", "1 1\n", r"image_class_labels\.txt: image 2 has no class of classes\.txt"),
            ("image_class_labels.txt", "1 201\n", "image 1 has no class"),
            ("classes.txt", None, r"classes\.txt cannot be read: No such file"),
            ("classes.txt", "1 001.Crow\n2 002.Crow\n3 003.Jay\n", r"classes\.txt must have different names such as"),
            ("classes.txt", "1 Crow\n", "must have different names"),
            ("train_test_split.txt", None, r"train_test_split\.txt cannot be read: No such file"),
        ],
    )
    def test_mistakes_name_the_file(self, name: str, content: str | None, expected: str, tmp_path: Path) -> None:
        path = write_cub(tmp_path) / "CUB_200_2011" / name
        path.unlink()
        if content is not None:
            path.write_text(content)
        with pytest.raises(DataError, match=expected):
            source("cub-200", tmp_path, split="official").examples("train", seed=1)

    def test_without_any_captions_it_says_where_it_looked(self, tmp_path: Path) -> None:
        write_cub(tmp_path, "elsewhere")
        with pytest.raises(DataError, match=r"cub-200: no \*/\*\.txt in .*/text_c10, .*/birds/text_c10, "):
            source("cub-200", tmp_path).examples("train", seed=1)


class TestFlowers102:
    def test_there_are_102_names(self, tmp_path: Path) -> None:
        assert len(CLASSES) == len(set(CLASSES)) == 102
        train, test = parts_of(source("flowers-102", write_flowers(tmp_path)))
        counts = Counter(example.label for example in train + test)
        assert counts == {"blackberry lily": 22, "pink primrose": 21}

    def test_the_official_split_trains_on_the_validation_part_too(self, tmp_path: Path) -> None:
        train, test = parts_of(source("flowers-102", write_flowers(tmp_path), split="official"))
        assert [int(example.id[6:]) for example in train] == [*range(1, 6), *range(23, 28)]
        assert len(test) == FLOWERS - 10

    def test_only_the_official_split_needs_setid(self, tmp_path: Path) -> None:
        (write_flowers(tmp_path) / "setid.mat").unlink()
        assert source("flowers-102", tmp_path).examples("train", seed=1)
        with pytest.raises(DataError, match=r"flowers-102: .*setid\.mat cannot be read: .*No such file"):
            source("flowers-102", tmp_path, split="official").examples("train", seed=1)

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (None, r"flowers-102: no imagelabels\.mat in "),
            (b"", r"imagelabels\.mat cannot be read: "),
            (b"<html>not found</html>" * 40, r"imagelabels\.mat cannot be read: "),
            ({"names": [[1, 2]]}, r"imagelabels\.mat has no labels"),
            ({"labels": [["a", "b"]]}, r"imagelabels\.mat cannot be read: "),
            ({"labels": [[1, 103]]}, r"imagelabels\.mat: 103 is not a label from 1 to 102"),
        ],
    )
    def test_mistakes_name_the_file(self, content: Any, expected: str, tmp_path: Path) -> None:
        path = write_flowers(tmp_path) / "imagelabels.mat"
        path.unlink()
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            savemat(path, {key: np.array(value) for key, value in content.items()})
        with pytest.raises(DataError, match=expected):
            source("flowers-102", tmp_path).examples("train", seed=1)
