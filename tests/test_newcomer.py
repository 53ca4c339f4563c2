"""The messages that a person sees who uses the project for the first time, and makes usual mistakes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data.shard import Shard
from common.encoders.timm import Timm
from common.errors import ModelError, ShardError
from common.findings import Findings
from common.frozen.pretrained import VARIABLE, locate
from common.media.series import real_array
from common.media.values import read
from deploy.cli import main, parser
from deploy.shards.fitting import Seen
from server.sites.attention import concerns
from server.sites.measured import FEWEST, measured_on_little


def test_an_accuracy_without_examples_of_a_class_is_named() -> None:
    said = list(
        measured_on_little({"examples": 9, "by_class": {"sensitivity": [None, 1.0]}}, ["ill", "well"], "validation")
    )
    assert said == [
        "the figures contain nothing about the class 'ill': none of the 9 validation examples belongs there; a "
        "larger data.validation, or a test shard with all classes (--test-shard), measures every class",
        "the figures were measured on 9 validation examples only: one example is 11.1% of them",
    ]
    enough = {"examples": FEWEST, "by_class": {"sensitivity": [0.5, 1.0]}}
    assert not list(measured_on_little(enough, ["ill", "well"], "test"))
    assert not list(measured_on_little({}, ["ill", "well"], "test"))


def test_most_sites_are_more_than_half() -> None:
    def sites(*rates: int) -> dict[str, dict[str, object]]:
        return {
            f"site-{number}": {
                "findings": {"audio": Findings(values=1, forms={f"sound, {rate} Hz, 1 channel": 1}).model_dump()}
            }
            for number, rate in enumerate(rates)
        }

    assert not [one for one in concerns(sites(8000, 16000, 44100), []) if one.site]
    (said,) = [one for one in concerns(sites(8000, 16000, 8000), []) if one.site]
    assert said.site == "site-1" and "most sites have 'sound, 8000 Hz" in said.what


def test_init_uses_the_lowest_rate_that_is_not_an_exception() -> None:
    seen = Seen(rates=[44100] * 60 + [16000] * 40 + [8000] * 30 + [200], seconds=[1.0] * 131)
    encoder, why = seen.encoder()
    assert "rate: 8000," in encoder
    assert "8000 Hz is the lowest rate" in why


def test_a_table_without_description_is_one_mistake(tmp_path: Path) -> None:
    lines = [{"id": str(number), "label": "ill", "vitals": {"age": number}} for number in range(30)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "shard.json").write_text(json.dumps({"site": "a", "classes": ["ill"], "modalities": ["vitals"]}))
    with pytest.raises(ShardError) as caught:
        Shard.open(tmp_path)
    assert str(caught.value).count("\n") == 1
    assert "Write columns.json, or make the shard with `fedmosaic import`" in str(caught.value)


def test_a_dicom_file_without_an_ending_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "IM1").write_bytes(bytes(128) + b"DICM" + bytes(9))
    with pytest.raises(
        ValueError, match="without an ending are not supported; it is a DICOM file: only `fedmosaic imp"
    ):
        read(tmp_path / "IM1")


def test_messages_name_the_choices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ValueError, match=r"frozen, all, lora or last-N-blocks, e\.g\. last-2-blocks, is needed, not 'last"
    ):
        Timm.model_validate({"name": "timm", "pretrained": "x", "train": "last-block"})
    with pytest.raises(ValueError, match=r"is needed, not Image \(the encoders image and timm read pictures"):
        real_array(Image.fromarray(np.zeros((4, 4), np.uint8)))
    (tmp_path / "mobilenetv2").mkdir()
    (tmp_path / "mobilenetv2" / "config.json").write_text("{}")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(ModelError, match="Did you mean 'mobilenetv2'"):
        locate("mobilenet")


def test_arguments_in_two_places(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["import", "image=a", "--out", "b", "vitals=c.csv"])
    assert "Put vitals=c.csv next to the other arguments without a dash" in capsys.readouterr().err


def test_each_example_of_the_help_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["init", "--help"])
    told = capsys.readouterr().out
    assert "examples:\n  fedmosaic init my-experiment\n  fedmosaic init --plugin focal-loss" in told


def test_decimal_commas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, command = tmp_path / "v.csv", ["import", f"vitals={tmp_path / 'v.csv'}", "--labels", str(tmp_path / "v.csv")]
    table.write_text("id;age [years];dose;code;label\na;67,3;1;1,5;x\nb;50;0,5;2,5;y\nc;;-3,25;1,5;y\n")
    for out, status, options in (("a", 2, []), ("b", 0, ["--decimal-comma", "--categories", "code"])):
        with pytest.raises(SystemExit) as ended:
            main([*command, *options, "--out", str(tmp_path / out)])
        assert ended.value.code == status
    assert "decimal commas: add --decimal-comma" in capsys.readouterr().err
    cells = [record.rows["vitals"].cells for record in Shard.open(tmp_path / "b").records]
    assert cells[0] == {"age": 67.3, "dose": 1, "code": "1,5"}
    assert cells[2] == {"dose": -3.25, "code": "1,5"}
    table.write_text("id;age;label\na;67,3;x\nb;1.234;y\n")
    with pytest.raises(SystemExit):
        main([*command, "--decimal-comma", "--out", str(tmp_path / "c")])
    assert "'1.234' (line 3) has a point, but --decimal-comma" in capsys.readouterr().err
