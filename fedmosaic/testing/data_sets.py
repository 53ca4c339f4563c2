"""The contract of a data set."""

import hashlib
from typing import Any

import pytest

from common.data.shard import Example
from common.datasets.base import DataSet
from common.tasks.labels import Label, as_written, names_in, read_label

SEED = 1
EVERY = 7
"""The contents of one in this many examples are read, because reading all contents may take long."""


class DataSetContract:
    """Override the fixture `data_set`."""

    @pytest.fixture
    def data_set(self) -> Any:
        """The data set with its options."""
        raise NotImplementedError

    def test_its_examples_have_its_classes_and_modalities(self, data_set: Any) -> None:
        assert isinstance(data_set, DataSet)
        assert data_set.licence
        assert len(set(data_set.classes)) == len(data_set.classes) >= (1 if data_set.task == "regression" else 2)
        for part in ("train", "test"):
            examples = data_set.examples(part, SEED)
            assert all(_is_label(data_set, example.label) for example in examples)
            if data_set.task != "regression":
                named = {name for example in examples for name in names_in(data_set.task, example.label)}
                assert named == set(data_set.classes)
            assert {m for example in examples for m in example.media} <= set(data_set.modalities)
            assert len({example.id for example in examples}) == len(examples)

    def test_a_seed_gives_the_same_examples_every_time(self, data_set: Any) -> None:
        first, again = (data_set.examples("train", SEED) for _ in range(2))
        assert [(example.id, example.label, example.group) for example in first] == [
            (example.id, example.label, example.group) for example in again
        ]
        for one, other in list(zip(first, again, strict=True))[::EVERY]:
            assert _contents(one) == _contents(other)

    def test_no_value_is_in_both_parts(self, data_set: Any) -> None:
        train, test = (
            {
                content
                for example in data_set.examples(part, SEED)[::EVERY]
                for modality, content in _contents(example).items()
                if example.media[modality].suffix  # texts may repeat
            }
            for part in ("train", "test")
        )
        assert not train & test


def _is_label(data_set: DataSet, label: Label) -> bool:
    """Whether a shard that contains the label can be read."""
    return read_label(data_set.task, as_written(label), data_set.classes) == label


def _contents(example: Example) -> dict[str, str]:
    return {m: hashlib.sha256(media.read()).hexdigest() for m, media in example.media.items()}
