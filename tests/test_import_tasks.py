"""`fedmosaic import --task`: several labels, columns of labels and numbers as people write them in tables."""

import argparse
from pathlib import Path
from typing import get_args

import pytest
from test_cli import call

from common.config.task import TaskName
from common.data.shard import Shard
from deploy.cli import parser
from deploy.commands.import_files import NAMED

COLUMNS = ("--task", "multi-label", "--label-columns", "cough,fever")
LISTED = ("--task", "multi-label")
NUMBER = ("--task", "regression", "--label-columns", "age")


class Importer:
    """Imports tables of labels with a column `note` of texts."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys

    def __call__(self, table: str, *options: str, status: int = 0, text: bool = True) -> str:
        """What the command prints. table: lines with rows separated by semicolons or commas."""
        path = self.folder / "labels.csv"
        path.write_text(table)
        texts = ("--text-columns", "text=note") if text else ()
        self.out = self.folder / f"shard-{len(list(self.folder.iterdir()))}"
        assert call("import", "--labels", path, *texts, *options, "--out", self.out) == status
        said = self.capsys.readouterr()
        return said.err if status else said.out

    @property
    def shard(self) -> Shard:
        return Shard.open(self.out)

    @property
    def labels(self) -> dict[str, object]:
        return {record.id: record.label for record in self.shard.records}


@pytest.fixture
def importer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Importer:
    return Importer(tmp_path, capsys)


def test_the_tasks_are_those_of_experiments() -> None:
    assert tuple(NAMED) == get_args(TaskName)
    (commands,) = [one for one in parser()._actions if isinstance(one, argparse._SubParsersAction)]
    (task,) = [one for one in commands.choices["import"]._actions if one.dest == "task"]
    assert task.choices == get_args(TaskName)


class TestLabelsInOneCell:
    @pytest.mark.parametrize(
        ("sign", "options"),
        [
            (";", ()), (" | ", ()), (", ", ("--label-separator", "comma")), ("/", ("--label-separator", "/")),
            (" and ", ("--label-separator", " and ")),
        ],
    )  # fmt: skip
    def test_are_separated(self, sign: str, options: tuple[str, ...], importer: Importer) -> None:
        said = importer(
            f'id,note,label\na,x,"fever{sign}cough"\nb,y,cough\nc,z,"cough{sign}cough"\n', *LISTED, *options
        )
        assert importer.labels == {"a": ("fever", "cough"), "b": ("cough",), "c": ("cough",)}
        assert (importer.shard.info.task, importer.shard.info.classes) == ("multi-label", ["cough", "fever"])
        assert "labels (they must be the same at all sites): cough,fever" in said

    def test_commas_and_two_signs_need_a_decision(self, importer: Importer) -> None:
        said = importer('id,note,label\na,x,"fever, cough"\n', *LISTED, status=2)
        assert "labels such as 'fever, cough' (line 2) contain commas" in said and "--label-separator" in said
        said = importer("id,note,label\na,x,fever;cough\nb,x,fever|cough\n", *LISTED, status=2)
        assert "the labels contain ';' (line 2) and '|' (line 3): name the separator" in said
        importer('id,note,label\na,x,"fever, cough"\n', *LISTED, "--label-separator", "semicolon")
        assert importer.labels == {"a": ("fever, cough",)}

    def test_classes_fix_labels_and_their_order(self, importer: Importer) -> None:
        table = "id,note,label\na,x,fever;cough\nb,y,pain;thirst\n"
        said = importer(table, *LISTED, "--classes", "fever,cough", status=2)
        assert "line 3: label 'pain' is not in --classes; label 'thirst' is not in --classes" in said
        importer(table, *LISTED, "--classes", "thirst,pain,cough,fever,rash")
        assert importer.shard.info.classes == ["thirst", "pain", "cough", "fever", "rash"]

    @pytest.mark.parametrize("cell", ["{'NORM': 100.0, 'SR': 0.0}", "['NORM', 'SR']"])
    def test_cells_of_a_program_are_refused(self, cell: str, importer: Importer) -> None:
        said = importer(f'id,note,label\na,x,"{cell}"\n', *LISTED, status=2)
        assert "line 2: label" in said and "convert it to labels separated by ';', see docs/how-to/tasks.md" in said

    def test_an_empty_cell_needs_a_decision(self, importer: Importer) -> None:
        table = "id,note,label\na,x,cough\nb,y,\nc,z,NA\n"
        said = importer(table, *LISTED, status=2)
        assert "cells of labels are empty, 2 in all, e.g. line 3. Choose --blank absent or drop" in said
        importer(table, *LISTED, "--blank", "absent")
        assert importer.labels == {"a": ("cough",), "b": (), "c": ()}
        said = importer(table, *LISTED, "--blank", "drop")
        assert importer.labels == {"a": ("cough",)}
        assert "left out, cells of labels are empty (--blank drop): b, c" in said
        assert "no row has a label" in importer("id,note,label\nb,y,\n", *LISTED, "--blank", "absent", status=2)
        assert "leave out every row" in importer("id,note,label\nb,y,\n", *LISTED, "--blank", "drop", status=2)


class TestOneColumnPerLabel:
    @pytest.mark.parametrize(("yes", "no"), [("1", "0"), ("1.0", "0.0"), ("Yes", "no"), ("true", "FALSE")])
    def test_with_flags(self, yes: str, no: str, importer: Importer) -> None:
        importer(f"id,note,cough,fever\na,x,{yes},{yes}\nb,y,{no},{yes}\nc,z,{no},{no}\n", *COLUMNS)
        assert importer.labels == {"a": ("cough", "fever"), "b": ("fever",), "c": ()}
        assert importer.shard.info.classes == ["cough", "fever"]

    def test_uncertain_and_blank_labels_need_a_decision(self, importer: Importer) -> None:
        table = "id,note,cough,fever\na,x,-1.0,1.0\nb,y,,-1\nc,z,1,0\n"
        said = importer(table, *COLUMNS, status=2)
        assert (
            "labels are uncertain (-1), 2 in all, e.g. line 2, column cough. Choose --uncertain absent, present" in said
        )
        assert "cells of labels are empty, 1 in all, e.g. line 3, column cough. Choose --blank absent or drop" in said
        importer(table, *COLUMNS, "--uncertain", "present", "--blank", "absent")
        assert importer.labels == {"a": ("cough", "fever"), "b": ("fever",), "c": ("cough",)}
        importer(table, *COLUMNS, "--uncertain", "absent", "--blank", "absent")
        assert importer.labels == {"a": ("fever",), "b": (), "c": ("cough",)}
        said = importer(table, *COLUMNS, "--uncertain", "drop", "--blank", "absent")
        assert importer.labels == {"c": ("cough",)}
        assert "left out, labels are uncertain (-1) (--uncertain drop): a, b" in said

    def test_all_mistakes_of_all_rows_are_named(self, importer: Importer) -> None:
        table = "id,note,cough,fever\na,x,2,maybe\nb,y,0.5,1\n,z,1,1\nc,x,1,1\nc,x,1,1\n"
        said = importer(table, *COLUMNS, status=2)
        assert "line 2: column cough is '2', not 0 or 1; column fever is 'maybe', not 0 or 1" in said
        assert "line 3: column cough is '0.5', not 0 or 1" in said
        assert "line 4: needs an id and a label" in said and "line 6: id 'c' appears twice" in said

    def test_classes_give_the_order(self, importer: Importer) -> None:
        table = "id,note,cough,fever\na,x,1,1\n"
        importer(table, *COLUMNS, "--classes", "fever,cough")
        assert importer.shard.info.classes == ["fever", "cough"] and importer.labels == {"a": ("fever", "cough")}
        said = importer(table, *COLUMNS, "--classes", "fever,pain", status=2)
        assert "--classes must have the names of the columns with labels" in said


class TestNumbers:
    def test_of_one_and_of_several_targets(self, importer: Importer) -> None:
        importer("id,note,age\na,x,63\nb,y,4.5\n", *NUMBER)
        assert importer.labels == {"a": (63.0,), "b": (4.5,)}
        assert (importer.shard.info.task, importer.shard.info.classes) == ("regression", ["age"])
        importer("id,note,age,bmi\na,x,63,21.5\n", "--task", "regression", "--label-columns", "bmi,age")
        assert importer.labels == {"a": (21.5, 63.0)}
        importer("id,note,age\na,x,63\n", "--task", "regression", "--label-column", "age")
        assert importer.shard.info.classes == ["age"]

    def test_a_missing_number_leaves_the_row_out_or_is_a_mistake(self, importer: Importer) -> None:
        table = "id,note,age\na,x,63\nb,y,\nc,z,n/a\n"
        said = importer(table, *NUMBER, status=2)
        assert "cells of labels are empty, 2 in all, e.g. line 3, column age. Choose --blank drop" in said
        said = importer(table, *NUMBER, "--blank", "drop")
        assert importer.labels == {"a": (63.0,)} and "(--blank drop): b, c" in said

    def test_other_texts_are_mistakes(self, importer: Importer) -> None:
        table = "id;note;age\na;x;old\nb;y;63,5\nc;z;1e300\n"
        said = importer(table, *NUMBER, status=2)
        assert "line 2: column age: 'old' is not a number" in said
        assert "line 3: column age: '63,5' is not a number: add --decimal-comma" in said
        assert "line 4: column age: '1e300' is larger than" in said
        importer("id;note;age\nb;y;63,5\n", *NUMBER, "--decimal-comma")
        assert importer.labels == {"b": (63.5,)}
        said = importer("id;note;age\nb;y;1.234\n", *NUMBER, "--decimal-comma", status=2)
        assert "'1.234' (line 2) has a point" in said


def test_labels_are_never_columns_of_a_table(importer: Importer) -> None:
    table = "id,age,weight,cough,fever\na,63,70,1,0\nb,41,65,0,1\n"
    source = f"vitals={importer.folder / 'labels.csv'}"
    importer(table, source, *COLUMNS, text=False)
    assert list(importer.shard.columns["vitals"]) == ["age", "weight"]
    importer(table, source, *NUMBER, "--leave-out", "cough,fever", text=False)
    assert list(importer.shard.columns["vitals"]) == ["weight"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--label-columns", "cough"), "Set --task multi-label or --task regression"),
        (("--blank", "drop"), "--blank: every example needs a class"),
        ((*NUMBER, "--blank", "absent"), "--blank absent: a target cannot be absent"),
        ((*NUMBER, "--uncertain", "drop"), "--uncertain is for --task multi-label with --label-columns"),
        ((*LISTED, "--uncertain", "drop"), "--uncertain is for --task multi-label with --label-columns"),
        ((*COLUMNS, "--label-separator", ";"), "--label-separator is the sign between the labels in one cell"),
        ((*LISTED, "--label-columns", "a,,a"), "is not a list of different names"),
        ((*COLUMNS, "--label-column", "age"), "cannot be used together"),
        (("--task", "regression", "--classes", "age"), "--classes must have the names of the columns with labels"),
    ],
)
def test_options_that_do_not_fit_the_task(options: tuple[str, ...], reason: str, importer: Importer) -> None:
    table = "id,note,age,cough,fever,label\na,x,1,1,1,cough\n"
    assert reason in " ".join(importer(table, *options, status=2).split())


def test_folders_are_classes_only_for_single_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes" / "cough").mkdir(parents=True)
    (tmp_path / "notes" / "cough" / "a.txt").write_text("x")
    source, out = f"text={tmp_path / 'notes'}", tmp_path / "shard"
    assert call("import", source, "--task", "multi-label", "--out", out) == 2
    assert "--task multi-label needs --labels TABLE, because the name of a folder is one class" in (
        capsys.readouterr().err
    )


def test_a_shard_for_prediction_needs_no_labels_and_uses_no_column_of_labels(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,weight,cough,fever\na,70,,\nb,65,1,\n")
    source, out = f"vitals={tmp_path / 'rows.csv'}", tmp_path / "shard"
    assert call("import", source, *COLUMNS, "--unlabelled", "--out", out) == 0
    found = Shard.open(out, labelled=False)
    assert found.info.classes == [] and list(found.columns["vitals"]) == ["weight"]
