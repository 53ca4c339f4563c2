"""CrisisMMD v2.0, informative task: classify tweets with pictures, sent during a disaster, as informative or not.

F. Alam, F. Ofli, M. Imran, "CrisisMMD: Multimodal Twitter Datasets from Natural Disasters", ICWSM 2018. Seven disasters
of 2017; 13,608 pairs of text and picture for training, 2,237 for development (not used here), 2,237 for testing.
"""

from pathlib import Path
from typing import ClassVar, Literal

from common.data.shard import Example, Media
from common.datasets.base import DataSet, find_folder, only_in_training, read_lines
from common.errors import DataError

NAME = "crisis-mmd"
LISTS = "crisismmd_datasplit_all"
FILE = "task_informative_text_img_{}.tsv"
CLASSES = ["informative", "not_informative"]
Row = dict[str, str]
"""A line of a list, by column name."""


class CrisisMmd(DataSet):
    """Tweets with pictures. Each natural client has one disaster."""

    modalities: ClassVar[tuple[str, ...]] = ("image", "text")
    licence: ClassVar[str] = "CC BY-NC-SA 4.0; tweets under Twitter's terms (CrisisMMD)"
    folders: ClassVar[tuple[str, ...]] = ("folder",)

    folder: str
    """The folder with data_image and crisismmd_datasplit_all."""
    label: Literal["label", "label_text", "label_image"] = "label"
    """The column with the class: `label`, `label_text` (the annotators' label for the text alone) or `label_image`
    (their label for the picture alone)."""
    agreed: bool = False
    """Whether to use only pairs whose text and picture have the same label."""

    @property
    def classes(self) -> list[str]:
        """The class names in the lists."""
        return list(CLASSES)

    def examples(self, part: str, seed: int) -> list[Example]:
        """One example per picture, with the text of its tweet. The natural group is the disaster."""
        lists = find_folder(NAME, self.folder, [LISTS, f"{LISTS}/{LISTS}", ""], FILE.format("t*"))
        images = find_folder(NAME, self.folder, ["", "CrisisMMD_v2.0"], "data_image")
        rows = {which: self._read(lists / FILE.format(which)) for which in ("train", "test")}
        chosen = rows["test"]
        if part == "train":
            chosen = only_in_training(NAME, rows["train"], rows["test"], lambda row: row["image_id"])
        return [self._example(images, row) for row in chosen]

    def _example(self, images: Path, row: Row) -> Example:
        path = images / row["image"]
        media = {"image": Media(path.read_bytes, path.suffix), "text": Media.text(row["tweet_text"])}
        return Example(row["image_id"], row[self.label], media, row["event_name"])

    def _read(self, path: Path) -> list[Row]:
        """The rows of a list. Lines are split only at tabs, because a quotation mark in a tweet does not begin a quoted
        field."""
        names, *lines = [line.split("\t") for line in read_lines(NAME, path)] or [[]]
        needed = {"event_name", "image_id", "tweet_text", "image", self.label}
        needed |= {"label_text", "label_image"} if self.agreed else set()
        if absent := sorted(needed - set(names)):
            raise DataError(f"{NAME}: {path} has no column {', '.join(absent)}")
        rows = []
        for number, fields in enumerate(lines, start=2):
            row = dict(zip(names, fields, strict=False))
            if len(fields) < len(names) or row[self.label] not in CLASSES:
                raise DataError(
                    f"{NAME}: {path}, example {number - 1}: the line needs {len(names)} columns with "
                    f"{' or '.join(CLASSES)} in the column {self.label}"
                )
            if not self.agreed or row["label_text"] == row["label_image"]:
                rows.append(row)
        return rows
