"""Completion on tiny random instances of the generators' libraries' models."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import experiment
from PIL import Image

from client.complete import complete
from client.completion.base import Generator, Request
from client.site import Site
from common.config.component import build
from common.config.experiment import Experiment
from common.data.completed import find_completed, folder_of, read_lines, to_complete
from common.data.loader import load
from common.data.shard import Example, Media, Shard, ShardInfo, ShardWriter
from common.encoders.image import ImageEncoder
from common.encoders.text import Text
from common.errors import ConfigError, ModelError, ShardError
from common.media.values import Raw
from common.split.make import make_shards
from common.tasks.labels import Label
from common.types import Origin
from deploy.cli import main
from deploy.shards.complete import complete_shards, make_probe
from deploy.shards.quality import measure
from fedmosaic.testing import CompleterContract

PICTURES: list[Raw] = [Image.new("RGB", (40, 40), colour) for colour in ("red", "navy", "white")]
TEXTS: list[Raw] = ["a bird with a red crown", "blue wings", "a fanned tail"]
COMPLETION: dict[str, Any] = {
    "image": {
        "name": "diffusion",
        "source": "text",
        "model": "diffusion",
        "steps": 1,
        "candidates": 2,
        "ranker": "coca",
    },
    "text": {"name": "coca", "source": "image", "model": "coca", "words": 6},
}
COMPLETERS: dict[str, tuple[dict[str, Any], list[Raw]]] = {
    "diffusion": (COMPLETION["image"], TEXTS),
    "coca": (COMPLETION["text"] | {"candidates": 3, "ranker": "clip"}, PICTURES),
    "blip2": ({"name": "blip2", "source": "image", "model": "blip2", "words": 6}, PICTURES),
    "blip2-drawn": (
        {"name": "blip2", "source": "image", "model": "blip2", "words": 6, "candidates": 3, "ranker": "clip"},
        PICTURES,
    ),
    "retrieval": ({"name": "retrieval", "source": "text", "model": "clip", "candidates": 2, "ranker": "clip"}, TEXTS),
}


def tiny(completion: dict[str, Any] | None = None, **changes: Any) -> Experiment:
    """birds-mini with half of the examples incomplete."""
    return experiment(
        data__set={"name": "birds-mini", "train_per_class": 1, "test_per_class": 1},
        data__missing={"incomplete": 0.5},
        data__limit=24,
        data__test_limit=6,
        model__encoders={"image": {"name": "image", "size": 16, "channels": 3, "width": 8}, "text": {"name": "text"}},
        completion=copy.deepcopy(COMPLETION if completion is None else completion),
        method="fedavg",
        **changes,
    )


@pytest.fixture
def shards(models: Path, tmp_path: Path) -> Path:
    make_shards(tiny(), tmp_path / "shards")
    return tmp_path / "shards"


class TestEveryCompleter(CompleterContract):
    @pytest.fixture(params=COMPLETERS)
    def name(self, request: pytest.FixtureRequest) -> Any:
        return request.param

    @pytest.fixture
    def completer(self, name: str, models: Path, request: pytest.FixtureRequest) -> Any:
        pool = {"pool": str(request.getfixturevalue("shards") / "test")} if name == "retrieval" else {}
        return build("completer", COMPLETERS[name][0] | pool)

    @pytest.fixture
    def modality(self) -> str:
        return "image"

    @pytest.fixture
    def sources(self, name: str) -> list[Raw]:
        return COMPLETERS[name][1]

    def test_a_source_of_another_kind_is_refused(self, name: str, generator: Generator) -> None:
        if name not in ("diffusion", "retrieval"):
            with pytest.raises(ValueError, match="an image is needed, not str"):
                generator.generate([Request("a text", "", [0])])


class TestComplete:
    def test_every_missing_value_is_made_and_loaded_as_generated(self, shards: Path) -> None:
        shard = Shard.open(shards / "client-0")
        missing = {m: [record.id for record in shard.records if not record.has(m)] for m in ("image", "text")}
        assert missing["image"] and missing["text"]
        counts = complete(shard, tiny().completion)
        assert {m: count.made for m, count in counts.items()} == {m: len(ids) for m, ids in missing.items()}
        loaded = load(shard, _encoders(), tiny().completion)
        for m, ids in missing.items():
            generated = loaded.examples.origin[m] == Origin.GENERATED
            assert [name for name, is_made in zip(loaded.ids, generated, strict=True) if is_made] == ids
            assert loaded.examples.has(m).all()
        untouched = load(shard, _encoders())
        assert not untouched.examples.has("image").all()

    def test_a_line_says_how_a_value_was_made_and_texts_do_not_hold_the_label(self, shards: Path) -> None:
        shard = Shard.open(shards / "client-0")
        complete(shard, tiny().completion)
        for m in ("image", "text"):
            folder = folder_of(shard, m, tiny().completion[m])
            assert json.loads((folder / "recipe.json").read_text()) == tiny().completion[m]
            for record in to_complete(shard, m, COMPLETION[m]["source"]):
                line = read_lines(folder)[record.id]
                kind = record.label.split()[-1]
                assert line["prompt"].startswith(f"A photo of {record.label}, a kind of {kind}")
                assert line["model"] == COMPLETION[m]["model"]
                assert (line["score"] is None) == (m == "text")
                if m == "image":
                    assert line["prompt"].endswith(f"{record.texts['text']}.")
                    with Image.open(folder / line["file_name"]) as picture:
                        assert picture.size == (64, 64)
                else:
                    assert record.label.lower() not in line["value"].lower()
                    assert "a kind of" not in line["value"]

    def test_without_class_names_no_prompt_has_one(self, shards: Path) -> None:
        shard = Shard.open(shards / "client-0")
        completion = {m: {**given, "class_name": False} for m, given in tiny().completion.items()}
        complete(shard, completion)
        for m in ("image", "text"):
            for name, line in read_lines(folder_of(shard, m, completion[m])).items():
                label = next(record.label for record in shard.records if record.id == name)
                assert label not in line["prompt"]
                assert line["prompt"].startswith(f"A photo of a {label.split()[-1]}")

    @pytest.mark.parametrize(
        ("task", "labels", "subjects"),
        [
            (
                "multi-label",
                [("red", "small"), ("small",), ()],
                ["A photo of red, small", "A photo of small", "A photo"],
            ),
            ("regression", [(2.5, 1.0), (0.0, 0.5)], ["A photo", "A photo"]),
        ],
    )
    def test_prompts_have_the_names_of_the_labels_and_no_numbers(
        self, task: Any, labels: list[Label], subjects: list[str], models: Path, tmp_path: Path
    ) -> None:
        info = ShardInfo(site="s", task=task, classes=["red", "small"], modalities=["image", "text"])
        examples = [Example(f"e{i}", label, {"text": Media.text("a bird")}) for i, label in enumerate(labels)]
        ShardWriter(tmp_path / "shard", info).write(examples)
        shard = Shard.open(tmp_path / "shard")
        diffusion = {"image": tiny().completion["image"]}
        complete(shard, diffusion)
        lines = read_lines(folder_of(shard, "image", diffusion["image"]))
        assert [lines[f"e{i}"]["prompt"] for i in range(len(labels))] == [f"{one}, a bird." for one in subjects]

    def test_an_interrupted_completion_goes_on_and_ends_with_the_same_values(
        self, shards: Path, tmp_path: Path
    ) -> None:
        shard, options = Shard.open(shards / "client-0"), tiny().completion["text"]
        complete(shard, {"text": options})
        folder = folder_of(shard, "text", options)
        whole = (folder / "completed.jsonl").read_text()
        first, *_ = whole.split("\n")
        (folder / "completed.jsonl").write_text(first + "\n" + whole[len(first) + 1 :][:25])
        with pytest.raises(ShardError, match="have not been completed"):
            find_completed(shard, "text", options)
        count = complete(shard, {"text": options})["text"]
        assert count.before == 1
        assert sorted((folder / "completed.jsonl").read_text().split("\n")) == sorted(whole.split("\n"))
        assert complete(shard, {"text": options})["text"].made == 0

    def test_the_best_candidate_is_kept_and_a_bad_one_is_rejected(self, shards: Path) -> None:
        shard = Shard.open(shards / "client-0")
        options = tiny().completion["image"]
        complete(shard, {"image": options})
        scores = {name: line["score"] for name, line in read_lines(folder_of(shard, "image", options)).items()}
        single = {**options, "candidates": 1}
        complete(shard, {"image": single})
        firsts = {name: line["score"] for name, line in read_lines(folder_of(shard, "image", single)).items()}
        gains = [scores[name] - firsts[name] for name in scores]
        assert min(gains) > -1e-4  # rounding differs with the size of the batch
        assert max(gains) > 1e-3
        threshold = sorted(scores.values())[len(scores) // 2]
        strict = {**options, "reject_below": threshold}
        count = complete(shard, {"image": strict})["image"]
        assert 0 < count.rejected < len(scores)
        loaded = load(shard, _encoders(), {"image": strict})
        assert int((loaded.examples.origin["image"] == Origin.GENERATED).sum()) == count.made

    def test_a_source_that_cannot_be_read_is_counted_and_stays_missing(self, shards: Path) -> None:
        shard = Shard.open(shards / "client-0")
        broken = to_complete(shard, "text", "image")[0]
        broken.files["image"].write_bytes(b"no image")
        count = complete(shard, {"text": tiny().completion["text"]})["text"]
        assert count.failed == 1
        assert broken.id not in find_completed(shard, "text", tiny().completion["text"])

    def test_test_data_are_never_completed(self, shards: Path) -> None:
        with pytest.raises(ShardError, match="test data are never completed"):
            complete(Shard.open(shards / "test"), tiny().completion)

    def test_a_site_without_the_completion_is_told_what_to_run(self, shards: Path) -> None:
        with pytest.raises(ShardError, match="run `fedmosaic complete"):
            Site(shards / "client-0").open(tiny())

    def test_names_that_leave_the_folder_are_refused(self, shards: Path) -> None:
        shard, options = Shard.open(shards / "client-0"), tiny().completion["image"]
        folder = folder_of(shard, "image", options)
        folder.mkdir(parents=True)
        lines = [{"id": record.id, "file_name": "../../image/x.png"} for record in to_complete(shard, "image", "text")]
        (folder / "completed.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        with pytest.raises(ShardError, match="leads out of the folder"):
            find_completed(shard, "image", options)


def test_a_client_with_one_modality_gets_the_other_one(models: Path, tmp_path: Path) -> None:
    chosen = tiny(data__missing__unimodal_clients={"text": 0.5})
    make_shards(chosen, tmp_path / "shards")
    folders = [tmp_path / "shards" / f"client-{i}" for i in range(2)]
    single = next(folder for folder in folders if Shard.open(folder).info.modalities == ["text"])
    complete_shards(chosen, [single], "cpu", quiet=True)
    assert Site(single).open(chosen).loaded.examples.modalities == ["image", "text"]


def test_the_probe_set_is_made_from_class_names_alone(shards: Path) -> None:
    info = Shard.open(shards / "test").info
    out = make_probe(tiny(), info, shards / "probe", 1, "cpu")
    probe = Shard.open(out)
    assert [record.label for record in probe.records] == info.classes
    assert all(record.has("image") and record.has("text") for record in probe.records)
    backwards = tiny({"text": COMPLETION["text"]})
    with pytest.raises(ConfigError, match="from class names alone"):
        make_probe(backwards, info, shards / "other", 1, "cpu")


def test_a_probe_set_is_for_the_task_of_the_shard(shards: Path) -> None:
    info = Shard.open(shards / "test").info
    info = info.model_copy(update={"task": "multi-label", "classes": info.classes[:2]})
    probe = Shard.open(make_probe(tiny(), info, shards / "probe", 1, "cpu"))
    assert probe.info.task == "multi-label"
    assert [record.label for record in probe.records] == [(name,) for name in info.classes]
    with pytest.raises(ConfigError, match="regression has no class names: use a shard of examples as --probe-shard"):
        make_probe(tiny(), info.model_copy(update={"task": "regression"}), shards / "other", 1, "cpu")


def test_agreement_is_measured_for_classes_only(shards: Path) -> None:
    facts = experiment(task="multi-label", method="fedavg", data={"clients": 2}, completion=copy.deepcopy(COMPLETION),
                       model__encoders=tiny().model.encoders)  # fmt: skip
    with pytest.raises(ConfigError, match="agreement is the share of correct classes, which multi-label has not"):
        measure(facts, shards, "clip")
    info = json.loads((shards / "test" / "shard.json").read_text())
    (shards / "test" / "shard.json").write_text(json.dumps({**info, "task": "regression", "classes": ["x"]}))
    lines = [json.loads(line) for line in (shards / "test" / "metadata.jsonl").read_text().splitlines()]
    numbers = "".join(json.dumps({**line, "label": 1.5}) + "\n" for line in lines)
    (shards / "test" / "metadata.jsonl").write_text(numbers)
    with pytest.raises(ShardError, match="its labels are for task regression, the experiment's task is single-label"):
        measure(tiny(), shards, "clip")


def test_mistakes_of_the_section_are_said_together() -> None:
    with pytest.raises(ConfigError) as found:
        tiny({"image": {"name": "diffusion", "source": "image"}, "sound": {"name": "coca", "source": "imag"},
              "text": {"name": "coca", "source": "image", "candidates": 2}})  # fmt: skip
    text = str(found.value)
    assert "completion.image.source: must be another modality than image" in text
    assert "completion.sound: unknown modality 'sound'" in text
    assert "completion.sound.source: unknown modality 'imag'" in text
    assert "candidates and reject_below need a ranker" in text


def test_a_captioner_without_a_decoder_is_refused(models: Path) -> None:
    with pytest.raises(ModelError, match="not a CoCa model"):
        build("completer", {"name": "coca", "source": "image", "model": "clip"}).load("text", "cpu")


def _encoders() -> dict[str, Any]:
    return {"image": ImageEncoder(16, 3, "cnn", 8), "text": Text().build()}


def test_the_commands_complete_probe_and_quality(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "experiment.yaml"
    config.write_text(tiny().to_yaml())
    calls = [
        ["complete", str(shards / "client-0"), str(shards / "client-1"), "--with", str(config), "--device", "cpu"],
        ["probe", str(shards / "test"), "--with", str(config), "--out", str(tmp_path / "probe"), "--per-class", "1"],
        ["quality", str(shards), "--with", str(config), "--scorer", "clip"],
    ]
    for arguments in calls:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "48 synthetic examples" in said
    assert "of shuffled pairs" in said
    found = measure(tiny(), shards, "clip")
    for m in ("image", "text"):
        lines = [line for i in range(2) for line in read_lines(
            folder_of(Shard.open(shards / f"client-{i}"), m, tiny().completion[m])).values()]  # fmt: skip
        assert found[m].made == len(lines) and found[m].rejected == 0
        assert 0 <= found[m].agreement <= 1
        assert -1 <= found[m].score <= 1
    with pytest.raises(SystemExit) as refused:
        main(["complete", str(shards / "test"), "--with", str(config)])
    assert refused.value.code == 2
