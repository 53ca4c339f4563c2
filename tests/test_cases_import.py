"""Folders and tables as people bring them: the troubles of ../shared/cases that are about importing and inspecting, and
others of the same kinds."""

import csv
import io
import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_cases_media import case
from test_cli import call

from common.build import build_model
from common.config.reading import parse
from common.config.task import SingleLabel
from common.data.shard import Shard, ShardInfo, file_stem
from common.errors import ShardError
from common.tasks.find import task_of
from common.trained.predictor import Predictor
from deploy.shards.own_files.names import look_alike
from deploy.shards.prediction import predict_folders, predict_shard, write_csv
from server.sites.attention import alike, unlike

Said = pytest.CaptureFixture[str]


def imported(out: Path, said: Said, *options: str | Path, status: int = 0) -> str:
    """What `fedmosaic import` says."""
    assert call("import", *options, "--out", out) == status
    heard = said.readouterr()
    return heard.err if status else heard.out


def pictures(folder: Path, *names: str) -> Path:
    for index, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 40 + 30 * index, np.uint8)).save(folder / name)
    return folder


def table(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def labels_of(folder: Path) -> dict[str, str]:
    return {record.id: record.label for record in Shard.open(folder).records}


class TestCases:
    def test_leading_zeros(self, tmp_path: Path, capsys: Said) -> None:
        folder = case("10-leading-zeros")
        said = imported(tmp_path / "out", capsys, f"image={folder / 'pictures'}", "--labels", folder / "labels.csv")
        assert "image: 2 of 4 files" in said
        assert "the file 08 and the id 8 are similar" in said and "drop leading zeros?" in said

    def test_names_in_another_form_of_unicode(self, tmp_path: Path, capsys: Said) -> None:
        folder = case("11-nfd-names")
        imported(tmp_path / "out", capsys, f"image={folder / 'pictures'}", "--labels", folder / "labels.csv")
        assert len(Shard.open(tmp_path / "out").records) == 2

    def test_wrong_content(self, tmp_path: Path, capsys: Said) -> None:
        folder = case("19-wrong-content")
        sources = (f"image={folder / 'pictures'}", f"audio={folder / 'sounds'}")
        said = imported(tmp_path / "out", capsys, *sources, "--labels", folder / "labels.csv")
        for reason in ("pointer.jpg: it is a Git LFS", "page.png: it is a web page (HTML)", "heic.jpg: it is a HEIC"):
            assert reason in said
        assert "3 of 4 image values (75%)" in said

    def test_classes_that_differ_by_case(self, tmp_path: Path, capsys: Said) -> None:
        labels, notes = case("21-class-lists/labels.csv"), case("30-spreadsheets/notes")
        said = imported(tmp_path / "out", capsys, f"text={notes}", "--labels", labels)
        assert "classes 'Cat' and 'cat' differ only in case" in said

    @pytest.mark.parametrize(
        ("name", "status", "expected"),
        [
            ("cp1252", 2, "cp1252"),
            ("utf16", 0, "UTF-16"),
            ("semicolon", 0, "separated by ';'"),
            ("capitals", 0, "ID,Label"),
            ("two_labels", 2, "column 'label' appears twice"),
        ],
    )
    def test_spreadsheets(self, name: str, status: int, expected: str, tmp_path: Path, capsys: Said) -> None:
        folder = case("30-spreadsheets")
        options = (f"text={folder / 'notes'}", "--labels", folder / f"{name}.csv")
        assert expected in imported(tmp_path / "out", capsys, *options, status=status)
        assert (tmp_path / "out").exists() == (status == 0)

    def test_nested_folders(self, tmp_path: Path, capsys: Said) -> None:
        folder = case("33-nested")
        said = imported(tmp_path / "out", capsys, f"image={folder / 'pictures'}", "--labels", folder / "labels.csv")
        assert "folders are not searched (add --recursive)" in said and "cat (1 file)" in said

    @pytest.mark.parametrize(
        ("name", "values", "patterns"), [("blank", 1, {"nothing": 2, "text": 1}), ("nan", 1, {"nothing": 1, "text": 1})]
    )
    def test_empty_texts(self, name: str, values: int, patterns: dict[str, int], capsys: Said) -> None:
        assert call("inspect", case(f"09-empty-text/{name}"), "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert found["modalities"]["text"]["values"] == values
        assert found["patterns"] == patterns

    def test_a_byte_order_mark(self, capsys: Said) -> None:
        assert call("inspect", case("31-bom/shard"), "--json") == 0
        assert json.loads(capsys.readouterr().out)["modalities"]["text"]["values"] == 1


class TestTables:
    ROWS = "id;label;note\na;Bär;über\nb;Füchse;\n"

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    @pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
    def test_what_shows_by_itself_is_said(self, encoding: str, separator: str, tmp_path: Path, capsys: Said) -> None:
        text = self.ROWS.replace(";", separator)
        labels = table(tmp_path / "labels.csv", text, encoding)
        folder = pictures(tmp_path / "p", "a.png", "b.png")
        said = imported(tmp_path / "out", capsys, f"image={folder}", "--labels", labels)
        assert labels_of(tmp_path / "out") == {"a": "Bär", "b": "Füchse"}
        assert ("UTF-16" in said) == (encoding == "utf-16")
        assert ("separated by" in said) == (separator != ",")

    @pytest.mark.parametrize("encoding", ["cp1252", "cp1250", "mac-roman"])
    def test_other_encodings_are_asked_for(self, encoding: str, tmp_path: Path, capsys: Said) -> None:
        labels = table(tmp_path / "labels.csv", self.ROWS, encoding)
        options = (f"image={pictures(tmp_path / 'p', 'a.png', 'b.png')}", "--labels", labels)
        assert "name the encoding with --encoding" in imported(tmp_path / "out", capsys, *options, status=2)
        imported(tmp_path / "out", capsys, *options, "--encoding", encoding)
        assert labels_of(tmp_path / "out") == {"a": "Bär", "b": "Füchse"}

    def test_other_columns_files_and_texts_of_the_table_itself(self, tmp_path: Path, capsys: Said) -> None:
        pictures(tmp_path / "photos", "x/1.png", "2.png")
        rows = "Nr;Photo;Remark;Class\n007;photos/x/1.png;sat up;well\n008;photos/2.png;;ill\n009;gone.png;  ;ill\n"
        labels = table(tmp_path / "notes.csv", rows)
        said = imported(
            tmp_path / "out", capsys, "--labels", labels, "--id-column", "nr", "--label-column", "class",
            "--file-columns", "image=photo", "--text-columns", "text=remark"
        )  # fmt: skip
        lines = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()]
        assert lines == [
            {"id": "007", "label": "well", "image_file_name": "image/007.png", "text": "sat up"},
            {"id": "008", "label": "ill", "image_file_name": "image/008.png"},
        ]
        assert "using Class as class, Photo as photo, Remark as remark, Nr as nr" in said
        assert "text: 2 of 3 cells of column remark are empty" in said
        assert "left out, image, there is no such file: gone.png" in said

    def test_rows_are_numbered_where_nothing_names_them(self, tmp_path: Path, capsys: Said) -> None:
        labels = table(tmp_path / "notes.csv", "label,remark\nNA,sat up\nNone,ate\n")
        imported(tmp_path / "out", capsys, "--labels", labels, "--text-columns", "text=remark")
        assert labels_of(tmp_path / "out") == {"1": "NA", "2": "None"}

    @pytest.mark.parametrize("named", ["a", "a.png", "deep/a", "deep/a.png"])
    def test_a_file_may_be_called_in_four_ways(self, named: str, tmp_path: Path, capsys: Said) -> None:
        folder = pictures(tmp_path / "p", "deep/a.png")
        labels = table(tmp_path / "labels.csv", f"id,label\n{named},x\n")
        imported(tmp_path / "out", capsys, f"image={folder}", "--labels", labels, "--recursive")
        (record,) = Shard.open(tmp_path / "out").records
        assert record.id == named and record.files["image"].is_file()

    @pytest.mark.parametrize(("one", "other"), [("NFC", "NFD"), ("NFD", "NFC")])
    @pytest.mark.parametrize("name", ["Müller", "Ångström", "한글", "が"])
    def test_forms_of_unicode_find_each_other(
        self, one: str, other: str, name: str, tmp_path: Path, capsys: Said
    ) -> None:
        folder = pictures(tmp_path / "p", unicodedata.normalize(one, name) + ".png")
        labels = table(tmp_path / "labels.csv", f"id,label\n{unicodedata.normalize(other, name)},x\n")
        imported(tmp_path / "out", capsys, f"image={folder}", "--labels", labels)
        assert len(labels_of(tmp_path / "out")) == 1


class TestFolders:
    def test_a_folder_for_each_class(self, tmp_path: Path, capsys: Said) -> None:
        pictures(tmp_path / "p", "cat/1.png", "cat/more/2.png", "dog/1.png", "stray.png")
        (tmp_path / "t" / "cat").mkdir(parents=True)
        (tmp_path / "t" / "dog").mkdir()
        (tmp_path / "t" / "cat" / "1.txt").write_text("purrs")
        (tmp_path / "t" / "dog" / "9.txt").write_text(" ")
        said = imported(tmp_path / "out", capsys, f"image={tmp_path / 'p'}", f"text={tmp_path / 't'}")
        assert labels_of(tmp_path / "out") == {"cat/1": "cat", "cat/more/2": "cat", "dog/1": "dog"}
        assert Shard.open(tmp_path / "out").records[0].texts == {"text": "purrs"}
        assert "labels are the names of the folders: cat, dog" in said
        assert "not in the folder of a class" in said and "stray.png" in said
        assert "9.txt: the text is empty" in said

    def test_without_folders_of_classes_labels_are_needed(self, tmp_path: Path, capsys: Said) -> None:
        folder = pictures(tmp_path / "p", "1.png")
        assert "labels are missing" in imported(tmp_path / "out", capsys, f"image={folder}", status=2)
        assert "nothing to import" in imported(tmp_path / "out", capsys, status=2)
        options = ("--text-columns", "text=x")
        assert "--text-columns need --labels" in imported(tmp_path / "out", capsys, *options, status=2)

    def test_without_labels(self, tmp_path: Path, capsys: Said) -> None:
        folder = pictures(tmp_path / "p", "1.png", "deep/2.png")
        said = imported(tmp_path / "out", capsys, f"image={folder}", "--unlabelled", "--recursive")
        assert "The shard has no labels. To predict them: fedmosaic predict" in said
        shard = Shard.open(tmp_path / "out", labelled=False)
        assert [(record.id, record.label) for record in shard.records] == [("1", ""), ("deep/2", "")]
        with pytest.raises(ShardError, match="has no classes: the shard is for prediction only"):
            Shard.open(tmp_path / "out")
        assert call("inspect", tmp_path / "out") == 0

    def test_rates_are_kept(self, tmp_path: Path, capsys: Said) -> None:
        (tmp_path / "s" / "x").mkdir(parents=True)
        np.save(tmp_path / "s" / "x" / "1.npy", np.zeros((20, 3)))
        source = f"signal={tmp_path / 's'}"
        imported(tmp_path / "out", capsys, source, "--rate", "signal=50")
        assert Shard.open(tmp_path / "out").info.rates == {"signal": 50.0}
        for wrong in ("signal=0", "signal=fast", "video=25", "signal=inf", "signal"):
            imported(tmp_path / "other", capsys, source, "--rate", wrong, status=2)


@pytest.mark.parametrize(
    "name", ["..", "../x", "/etc/passwd", "a//b", "a/./b", "C:\\x", "x" * 300, "a/../../b", "\x1b[31m", "con.", " a"]
)
def test_an_id_never_leads_out_of_the_shard(name: str, tmp_path: Path) -> None:
    place = (tmp_path / file_stem(name)).resolve()
    assert place.is_relative_to(tmp_path.resolve()) and place != tmp_path.resolve()
    assert file_stem(name) != file_stem(name + "'") and len(file_stem(name)) < 200
    assert file_stem("cat/1 b") == "cat/1 b"


def test_keys_that_nothing_reads_are_named(tmp_path: Path, capsys: Said) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / "shard.json").write_text(json.dumps({"site": "s", "classes": ["a"], "modalities": ["image", "text"]}))
    lines = [{"id": str(i), "label": "a", "text": "x", "image_filename": "1.png", "sex": "f"} for i in range(3)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert call("inspect", folder) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "3 lines of metadata.jsonl have the unknown key 'image_filename', which is ignored." in said
    assert "Did you mean 'image_file_name'?" in said
    assert "3 lines of metadata.jsonl have the unknown key 'sex', which is ignored" in said


def test_names_that_look_alike() -> None:
    assert list(look_alike(["08", "A 1", "x"], ["8", "a1", "y"])) == [("08", "8"), ("A 1", "a1")]
    assert list(alike(["cat", "Cat ", "dog", "do-g", "café", "cafe", "की", "का"])) == [
        "'cafe' and 'café'", "'Cat ' and 'cat'", "'do-g' and 'dog'"
    ]  # fmt: skip
    many = [f"class {i}" for i in range(500)]
    assert unlike([*many[:-1], "Class 499"], many) == "'Class 499' instead of 'class 499'"
    assert unlike(many[::-1], many) == "the same names in another order"
    assert unlike(["a", "x"], ["a", "b", "c"]) == "without 'b', 'c', with 'x'"
    assert len(unlike([], many)) < 120


class TestPredictions:
    @pytest.fixture
    def predictor(self) -> Predictor:
        raw: dict[str, Any] = {
            "name": "x", "data": {"clients": 1}, "method": "fedavg", "train": {"lr": 0.1}, "federation": {"rounds": 1},
            "model": {"encoders": {"image": {"name": "image", "size": 8}, "text": {"name": "text"}}},
        }  # fmt: skip
        return Predictor(build_model(parse(raw, "x"), 2).eval(), task_of(SingleLabel(), ("cat", "dog")))

    def test_a_row_for_everything_that_lies_there(self, predictor: Predictor, tmp_path: Path) -> None:
        pictures(tmp_path / "p", "1.png", "deep/2.png")
        (tmp_path / "p" / "3.png").write_bytes(b"<html>")
        (tmp_path / "p" / "notes.doc").write_bytes(b"")
        (tmp_path / "t").mkdir()
        (tmp_path / "t" / "1.txt").write_text("a word")
        rows, notes = predict_folders(predictor, {"image": tmp_path / "p", "text": tmp_path / "t"})
        assert [row.id for row in rows] == ["1", "3", "deep/2"]
        assert [row.prediction.modalities if row.prediction else None for row in rows] == [
            ("image", "text"), None, ("image",)
        ]  # fmt: skip
        assert "web page" in rows[1].in_words
        assert len(notes) == 1 and "notes.doc" in notes[0]
        written = io.StringIO(newline="")
        write_csv(rows, predictor.classes, written)
        read = list(csv.DictReader(io.StringIO(written.getvalue())))
        assert [*read[0]] == ["id", "prediction", "confidence", "modalities", "problem", "p(cat)", "p(dog)"]
        assert read[1]["prediction"] == "" and "web page" in read[1]["problem"]
        assert float(read[0]["p(cat)"]) + float(read[0]["p(dog)"]) == pytest.approx(1, abs=1e-5)
        highest = max(float(read[0]["p(cat)"]), float(read[0]["p(dog)"]))
        assert float(read[0]["confidence"]) == pytest.approx(highest, abs=1e-3)
        assert not (tmp_path / "p" / "cache").exists()

    def test_a_shard_without_labels(self, predictor: Predictor, tmp_path: Path) -> None:
        info = ShardInfo(site="s", classes=[], modalities=["text"])
        (tmp_path / "shard.json").write_text(info.model_dump_json())
        (tmp_path / "metadata.jsonl").write_text('{"id": "a", "text": "one"}\n{"id": "b", "text": "?"}\n')
        rows = predict_shard(predictor, Shard.open(tmp_path, labelled=False))
        assert [row.prediction is not None for row in rows] == [True, False]
        assert rows[1].in_words == "text: the text has no words"
