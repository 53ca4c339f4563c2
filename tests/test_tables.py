"""Tables as a modality: rows with missing cells in shards, agreement on columns, runs, predictions."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from sklearn.preprocessing import StandardScaler
from test_cli import call

from client.site import Site
from common.columns import Category, Described, Number
from common.config.reading import parse, read
from common.config.tables import with_columns, with_columns_of, without_columns
from common.data.loader import load
from common.data.shard import Example, Media, Shard, ShardInfo, ShardWriter
from common.encoders.table import Table
from common.errors import ConfigError, DataError, RunError, ShardError, WireError
from common.media.table_row import TableRow, row_of_json, table_row
from common.trained.predictor import load_model
from common.types import Origin
from deploy.engines.in_process import InProcessGrid
from deploy.shards.inspection.tables import unlike_columns
from server.aggregation.columns import agree, clashes
from server.clients.replies import read_introduction
from server.record.run_folder import RunFolder
from server.rounds.agreement import with_agreed_columns
from server.rounds.federation import Federation
from server.sites.attention import concerns

AGE, SEX = Number(type="number", unit="years"), Category(type="category", values=["f", "m"])
COLUMNS = {"age": AGE, "sex": SEX}
RAW: dict[str, Any] = {
    "name": "wards",
    "data": {"clients": 2, "validation": 0.0},
    "model": {"encoders": {"vitals": {"name": "table", "hidden": [8], "width": 8}, "text": {"name": "text"}}},
    "method": "fedavg-heads",
    "train": {"lr": 0.05},
    "federation": {"rounds": 2, "wait_seconds": 5},
}
AGREED = {
    "age": {"type": "number", "unit": "years", "range": [0, 120], "mean": 50.0, "std": 10.0},
    "sex": {"type": "category", "values": ["m", "f"]},
}


def row(number: int, shift: float = 0.0) -> dict[str, Any]:
    """A row whose age tells the label, with missing cells."""
    age = None if number % 5 == 0 else 40 + shift + 20 * (number % 2) + number % 7
    return {"age": age, "sex": None if number % 7 == 0 else "fm"[number % 2]}


def write_shard(
    folder: Path, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Any] = COLUMNS, site: str = ""
) -> Shard:
    """Every third example also has a text."""
    examples = [
        Example(
            f"{number}",
            "ab"[number % 2],
            {"vitals": Media.row(cells), **({"text": Media.text("stable")} if number % 3 == 0 else {})},
        )
        for number, cells in enumerate(rows)
    ]
    info = ShardInfo(site=site or folder.name, classes=["a", "b"], modalities=["text", "vitals"])
    ShardWriter(folder, info, {"vitals": dict(columns)}).write(examples)
    return Shard.open(folder)


@pytest.fixture
def shards(tmp_path: Path) -> list[Shard]:
    """Two sites of different ages."""
    return [write_shard(tmp_path / f"client-{i}", [row(n, 10 * i) for n in range(40 + 9 * i)]) for i in range(2)]


def grid_of(shards: Iterable[Shard], policy: Path | None = None) -> InProcessGrid:
    return InProcessGrid([Site(shard.folder, policy=policy, allowed=[]) for shard in shards])


class TestRows:
    def test_a_missing_cell_is_not_a_missing_modality_but_an_empty_row_is(self, tmp_path: Path) -> None:
        write_shard(tmp_path / "one", [row(n) for n in range(4)])
        lines = [
            {"vitals": {"age": 63, "sex": None}},
            {"vitals": {"age": None, "sex": " "}},
            {"vitals": {"age": float("nan")}},
            {"vitals": {}},
            {"vitals": None},
            {},
        ]
        told = "".join(
            json.dumps({"id": str(n), "label": "a", "text": "x", **line}) + "\n" for n, line in enumerate(lines)
        )
        (tmp_path / "one" / "metadata.jsonl").write_text(told)
        shard = Shard.open(tmp_path / "one")
        assert [record.has("vitals") for record in shard.records] == [True, *[False] * 5]
        assert shard.blank == {"vitals": 3}
        loaded = load(shard, {"vitals": Table(columns=AGREED).build()})
        assert loaded.examples.origin["vitals"].tolist() == [Origin.OBSERVED]

    def test_all_mistakes_are_reported_with_their_lines(self, tmp_path: Path) -> None:
        write_shard(tmp_path / "one", [row(n) for n in range(4)])
        cells = [{"age": "63"}, {"weight": 9, "sex": 1.5}, [1], {"age": [1]}, {"age": 1e400}, {"age": True}]
        told = "".join(json.dumps({"id": str(n), "label": "a", "vitals": c}) + "\n" for n, c in enumerate(cells))
        (tmp_path / "one" / "metadata.jsonl").write_text(told)
        with pytest.raises(ShardError) as error:
            Shard.open(tmp_path / "one")
        said = str(error.value)
        for part in (
            "line 1: vitals: age: '63' is a text, but the column has numbers",
            "line 2: vitals: sex: 1.5 is a number with a fraction, but the column has categories; "
            "weight is not a column",
            "line 3: 'vitals' must be a row, because columns.json describes it as a table, not [1]",
            "line 4: vitals: age: [1] is not a number or a text",
            "line 5: vitals: age: inf is not a number or a text",
        ):
            assert part in said
        assert "line 6" not in said

    def test_a_row_without_a_description_is_a_mistake(self, tmp_path: Path) -> None:
        write_shard(tmp_path / "one", [row(1)])
        (tmp_path / "one" / "columns.json").unlink()
        with pytest.raises(
            ShardError, match=r"line 1: 'vitals' is a row of a table, but columns\.json does not describe"
        ):
            Shard.open(tmp_path / "one")

    @pytest.mark.parametrize(
        ("told", "said"),
        [
            ({"pulse": {"age": {"type": "number"}}}, "'pulse' is not a modality of shard.json"),
            ({"vitals": {}}, "vitals has no columns"),
            ({"vitals": {"Label": {"type": "number"}}}, "'Label' cannot be a column of a table"),
            ({"vitals": {"a": {"type": "date"}}}, "vitals.a"),
            ({"vitals": {"a": {"type": "number", "range": [2, 1]}}}, "smaller than the second"),
            ({"vitals": {"a": {"type": "category", "values": ["x", " x"]}}}, "different names"),
            ({"vitals": {"a": {"type": "category"}}}, "vitals.a"),
        ],
    )
    def test_a_wrong_description_is_refused(self, tmp_path: Path, told: Any, said: str) -> None:
        write_shard(tmp_path / "one", [row(1)])
        (tmp_path / "one" / "columns.json").write_text(json.dumps(told))
        with pytest.raises(ShardError, match="is not valid") as error:
            Shard.open(tmp_path / "one")
        assert said in str(error.value)

    @given(st.dictionaries(st.text(), st.none() | st.booleans() | st.floats() | st.text() | st.integers()))
    def test_a_row_of_json_is_the_same_row(self, cells: dict[str, Any]) -> None:
        try:
            one = table_row(cells)
        except ValueError:
            return
        assert row_of_json(json.dumps(cells)) == one == row_of_json(str(one)) == table_row(one.cells)

    @given(st.text())
    def test_any_text_is_a_row_or_a_value_error(self, text: str) -> None:
        try:
            assert isinstance(row_of_json(text), TableRow)
        except ValueError as error:
            assert str(error)


class TestEncoder:
    def test_prepared_numbers_are_standardised_and_missing_cells_are_zero(self) -> None:
        encoder = Table(columns=AGREED).build()
        assert encoder.prepare(table_row({"age": 63, "sex": "f"})).tolist() == pytest.approx([1.3, 1, 2])
        assert encoder.prepare(table_row({"age": None, "sex": "m"})).tolist() == [0, 0, 3]
        assert encoder.prepare(table_row({"age": 50})).tolist() == [0, 1, 0]
        with pytest.raises(ValueError, match="the row has no cell in any of the columns age, sex"):
            encoder.prepare(table_row({"weight": 3}))

    def test_what_is_not_used_is_a_finding_without_the_cell(self) -> None:
        encoder = Table(columns=AGREED).build()
        raw = table_row({"age": 630, "sex": "diverse", "weight": 3})
        assert encoder.prepare(raw).tolist() == [0, 0, 1]
        assert encoder.notes(raw) == [
            "column age: a number outside [0.0, 120.0], treated as missing",
            "column sex: a category that is not agreed, treated as unknown",
            "column weight is not used, because it is not agreed",
        ]

    def test_an_outlier_is_cut(self) -> None:
        encoder = Table(columns={"dose": {"type": "number", "mean": 0.0, "std": 1.0}}, clip=3.0).build()
        assert encoder.prepare(table_row({"dose": -1e9})).tolist() == [-3, 1]

    def test_booleans_and_integers_are_categories_or_numbers(self) -> None:
        columns = {
            "smoker": {"type": "category", "values": ["false", "true"]},
            "ward": {"type": "category", "values": ["1", "2"]},
            "flag": {"type": "number", "mean": 0.0, "std": 1.0},
        }
        encoder = Table(columns=columns).build()
        assert encoder.prepare(table_row({"smoker": True, "ward": 2, "flag": True})).tolist() == [1, 1, 3, 3]

    def test_the_order_of_columns_in_the_experiment_changes_nothing(self) -> None:
        one, other = (Table(columns=columns).build() for columns in (AGREED, dict(reversed(AGREED.items()))))
        assert one.prepare(table_row({"age": 63})).tolist() == other.prepare(table_row({"age": 63})).tolist()

    def test_a_missing_and_an_unknown_category_differ(self) -> None:
        encoder = Table(columns=AGREED).build()
        rows = [table_row({"age": 50, **cells}) for cells in ({}, {"sex": "x"}, {"sex": "f"}, {"sex": "m"})]
        features = encoder(torch.stack([encoder.prepare(one) for one in rows]))
        assert len({tuple(one.tolist()) for one in features.detach()}) == 4


class TestAgreement:
    def test_mean_and_deviation_are_those_of_all_numbers_together(self, shards: list[Shard], tmp_path: Path) -> None:
        experiment = parse(RAW, "test")
        assert without_columns(experiment) == ["vitals"]
        agreed = with_agreed_columns(experiment, grid_of(shards), RunFolder(tmp_path / "run", experiment))
        ages = [r.rows["vitals"].cells.get("age", np.nan) for s in shards for r in s.records if r.has("vitals")]
        wanted = StandardScaler().fit(np.array(ages, dtype=float)[:, None])
        column = agreed.model.encoders["vitals"]["columns"]["age"]
        assert column["mean"] == pytest.approx(wanted.mean_[0], rel=1e-12)
        assert column["std"] == pytest.approx(wanted.scale_[0], rel=1e-12)
        assert "mean:" in (tmp_path / "run" / "experiment.yaml").read_text()
        assert with_columns_of(experiment, json.loads(agreed.to_json())) == agreed

    @given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=30), min_size=1, max_size=5))
    def test_pooling_equals_concatenation(self, sites: list[list[float]]) -> None:
        told = {
            str(n): {"x": Described(column=AGE, count=len(v), mean=float(np.mean(v)), variance=float(np.var(v)))}
            for n, v in enumerate(sites)
        }
        column = agree(told)[0]["x"]
        together = np.concatenate(sites)
        assert column.mean == pytest.approx(together.mean(), abs=1e-6)
        assert column.std == pytest.approx(together.std() or 1.0, rel=1e-6, abs=1e-6) or together.std() < 1e-3

    def test_columns_and_categories_are_those_of_all_sites(self) -> None:
        here = {"sex": Described(column=SEX), "age": Described(column=AGE, count=5, mean=1.0, variance=0.0)}
        there = {
            "sex": Described(column=Category(type="category", values=["x", "m"])),
            "pulse": Described(column=Number(type="number", range=[0, 9]), count=5, mean=1.0, variance=4.0),
            "rare": Described(column=AGE),
        }
        agreed, unknown = agree({"a": here, "b": there})
        assert (list(agreed), unknown) == (["age", "pulse", "sex"], ["rare"])
        assert agreed["sex"].values == ["f", "m", "x"]
        assert (agreed["age"].std, agreed["pulse"].std, agreed["pulse"].range) == (1.0, 2.0, [0, 9])

    def test_other_units_and_types_are_refused_with_the_sites(self, tmp_path: Path) -> None:
        months, category = Number(type="number", unit="months"), Category(type="category", values=["f"])
        sites = {
            "a": {"age": Described(column=AGE), "sex": Described(column=SEX)},
            "b": {"age": Described(column=months), "sex": Described(column=category)},
            "c": {"age": Described(column=category)},
        }
        assert list(clashes(sites)) == [
            "column age is a number with the unit years at a, but a number with the unit months at b, "
            "but a category at c"
        ]
        rows = [row(n) for n in range(30)]
        shards = [
            write_shard(tmp_path / "ward-1", rows),
            write_shard(tmp_path / "ward-2", rows, {"age": months, "sex": SEX}),
        ]
        experiment = parse(RAW, "test")
        with pytest.raises(RunError, match="unit years at ward-1, but a number with the unit months at ward-2"):
            with_agreed_columns(experiment, grid_of(shards), RunFolder(tmp_path / "run", experiment))
        given = with_columns(experiment, {"vitals": AGREED})
        federation = Federation(given, grid_of(shards), None, RunFolder(tmp_path / "given", given))
        with pytest.raises(
            RunError, match=r"ward-2: .*its unit is months here, agreed is a number with the unit years"
        ):
            federation.run()

    def test_categories_in_another_unicode_form_are_the_same(self, tmp_path: Path) -> None:
        decomposed, composed = "Me\u0301decine", "M\u00e9decine"
        columns = [{"ward": Category(type="category", values=[name, "b"])} for name in (decomposed, composed)]
        told = {str(number): {"ward": Described(column=own["ward"])} for number, own in enumerate(columns)}
        agreed = agree(told)[0]
        assert agreed["ward"].values == [composed, "b"]
        encoder = Table(columns={"ward": {"type": "category", "values": [decomposed, "b"]}}).build()
        assert not encoder.notes(table_row({"ward": decomposed})) and not encoder.notes(table_row({"ward": composed}))

    def test_too_many_categories_of_all_sites_end_the_run_with_a_reason(self, tmp_path: Path) -> None:
        shards = [
            write_shard(
                tmp_path / site,
                [row(n) for n in range(20)],
                {"age": AGE, "sex": Category(type="category", values=["f", "m", *(f"{site}{n}" for n in range(600))])},
            )
            for site in ("a", "b")
        ]
        experiment = parse(RAW, "test")
        with pytest.raises(RunError, match="vitals: column sex has 1202 categories at a, b together, at most 1000"):
            with_agreed_columns(experiment, grid_of(shards), RunFolder(tmp_path / "run", experiment))

    def test_a_number_without_a_possible_mean_is_a_mistake_where_it_is_read(self, tmp_path: Path) -> None:
        rows = [{"age": 1.7e12 + number, "sex": "f"} for number in range(9)]  # milliseconds since 1970
        with pytest.raises(ShardError, match=r"line 1: vitals: age: 1\.7e\+12 is larger than 1e\+12"):
            write_shard(tmp_path / "one", rows)

    @pytest.mark.parametrize(
        ("tables", "said"),
        [
            ({"Label": Described(column=SEX)}, "'Label' cannot be a column"),
            ({"age": Described(column=AGE, count=10, mean=0.0, variance=1.0)}, "more numbers than the site has"),
        ],
    )
    def test_an_invented_description_is_refused_and_the_others_go_on(self, tables: Any, said: str) -> None:
        content = {"site": "a", "modalities": ["vitals"], "classes": ["x"], "num_examples": 9}
        own = {name: one.model_dump() for name, one in tables.items()}
        with pytest.raises(WireError, match=said):
            read_introduction({**content, "tables": {"vitals": own}})

    def test_invented_statistics_give_a_possible_deviation(self) -> None:
        told = {str(sign): {"x": Described(column=AGE, count=5, mean=sign * 1e12, variance=1e24)} for sign in (-1, 1)}
        assert agree(told)[0]["x"].std == 1e12

    def test_few_cells_keep_their_statistics(self, tmp_path: Path) -> None:
        shard = write_shard(tmp_path / "one", [{"age": 1, "sex": "f"}] * 4 + [{"sex": "m"}] * 9)
        experiment = parse(RAW | {"data": {"clients": 1, "validation": 0.0}}, "test")
        agreed = with_agreed_columns(experiment, grid_of([shard]), RunFolder(tmp_path / "run", experiment))
        assert list(agreed.model.encoders["vitals"]["columns"]) == ["sex"]

    @pytest.mark.parametrize("policy", ["table_statistics: false", "metrics: false", "local_dp: {clip: 1, noise: 1}"])
    def test_a_policy_keeps_the_statistics(self, shards: list[Shard], tmp_path: Path, policy: str) -> None:
        (tmp_path / "policy.yaml").write_text(policy)
        experiment, grid = parse(RAW, "test"), grid_of(shards, tmp_path / "policy.yaml")
        with pytest.raises(RunError) as error:
            with_agreed_columns(experiment, grid, RunFolder(tmp_path / "run", experiment))
        assert "model.encoders.vitals.columns" in str(error.value)
        assert ("statistics" in str(error.value)) or "metrics" in policy

    def test_findings_reach_the_server_and_a_later_site_uses_the_columns(
        self, shards: list[Shard], tmp_path: Path
    ) -> None:
        columns = {"age": Number(type="number", unit="years"), "sex": Category(type="category", values=["f", "m", "x"])}
        late = write_shard(tmp_path / "late", [{"age": 50 + n, "sex": "fx"[n % 2]} for n in range(20)], columns)
        experiment = parse(RAW, "test")
        run = RunFolder(tmp_path / "run", experiment)
        agreed = with_agreed_columns(experiment, grid_of(shards), run)
        federation = Federation(agreed, grid_of([*shards, late]), None, run)
        federation.run()
        found = federation.roster.known["late"].findings["vitals"]
        note = "column sex: a category that is not agreed, treated as unknown"
        assert dict(found.notes) == {note: 10}
        assert [one.what for one in concerns(federation.summary()["sites"], ["a", "b"])] == [
            f"10 of 20 vitals values: {note}"
        ]

    @pytest.mark.parametrize(("policy", "told"), [("min_examples: 3", 10), ("table_statistics: false", None)])
    def test_findings_about_cells_are_statistics(self, tmp_path: Path, policy: str, told: int | None) -> None:
        rows = [{"age": 500 if n < 3 else 50, "sex": "fx"[n % 2]} for n in range(20)]
        columns = {"age": AGE, "sex": Category(type="category", values=["f", "x"])}
        shard = write_shard(tmp_path / "one", rows, columns)
        (tmp_path / "policy.yaml").write_text(policy)
        given = with_columns(parse(RAW | {"data": {"clients": 1}}, "test"), {"vitals": AGREED})
        run = RunFolder(tmp_path / "run", given)
        federation = Federation(given, grid_of([shard], tmp_path / "policy.yaml"), None, run)
        federation._gather()
        notes = federation.roster.known["one"].findings["vitals"].notes
        assert list(notes.values()) == ([told] if told else [])  # three ages are outside of the range: too few to tell

    def test_the_open_site_describes_for_both(self, shards: list[Shard], tmp_path: Path) -> None:
        (tmp_path / "policy.yaml").write_text("table_statistics: false")
        sites = [Site(shards[0].folder, allowed=[]), Site(shards[1].folder, policy=tmp_path / "policy.yaml")]
        experiment, grid = parse(RAW, "test"), InProcessGrid(sites)
        run = RunFolder(tmp_path / "run", experiment)
        agreed = with_agreed_columns(experiment, grid, run)
        federation = Federation(agreed, grid, None, run)
        federation.run()
        assert sorted(federation.roster.known) == ["client-0", "client-1"]


class TestRuns:
    def test_a_resumed_run_keeps_its_columns_and_ends_the_same(
        self, shards: list[Shard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        experiment = parse(RAW, "test")
        straight = RunFolder(tmp_path / "straight", experiment)
        whole = with_agreed_columns(experiment, grid_of(shards), straight)
        params = Federation(whole, grid_of(shards), None, straight).run()
        stopped = RunFolder(tmp_path / "stopped", experiment)
        agreed = with_agreed_columns(experiment, grid_of(shards), stopped)
        federation = Federation(agreed, grid_of(shards), None, stopped)
        monkeypatch.setattr(federation, "_round_from", _fails_in(2, federation))
        with pytest.raises(RunError):
            federation.run()
        stopped._release()
        run = RunFolder(tmp_path / "stopped", experiment, resume=True)
        resumed = with_agreed_columns(experiment, grid_of([]), run)  # nobody is asked
        assert resumed == agreed
        again = Federation(resumed, grid_of(shards), None, run).run()
        assert all(value.equal(again[name]) for name, value in params.items())


def _fails_in(number: int, federation: Federation) -> Any:
    before = federation._round_from

    def round_from(current: int, params: Any) -> Any:
        if current == number:
            raise RunError("stopped by the test")
        return before(current, params)

    return round_from


def test_an_experiment_without_columns_names_the_option() -> None:
    with pytest.raises(ConfigError, match="columns"):
        Table().build()
    with pytest.raises(ConfigError, match="cannot be a column"):
        parse(RAW | {"model": {"encoders": {"vitals": {"name": "table", "columns": {"label": AGREED["age"]}}}}}, "test")


MESSY = """\
Patient;Age [years];Sex;Smoker;Admitted;Remark;CRP (mg/L);Code;Diagnosis;Empty
1;63;f;yes;2024-01-05;came by ambulance;12.5;007;a;
2;NA;m;no;2024-02-11;walks well;;008;b;
3;41;f;?;2024-03-01;no pain;nan;007;a;n/a
4;;;;;;;;b;
5;77;m;yes;2023-12-24;fell twice;3;009;b;
9;50;m;no;2023-12-25;left early;4;009;b;
"""


class TestImport:
    def _import(self, folder: Path, content: str, *more: str, labels: bool = True) -> Shard:
        (folder / "records.csv").write_text(content)
        given = [f"vitals={folder / 'records.csv'}", "--id-column", "patient", "--out", str(folder / "shard"), *more]
        if labels:
            given += ["--labels", str(folder / "records.csv"), "--label-column", "diagnosis"]
        assert call("import", *given) == 0
        return Shard.open(folder / "shard", labelled=labels)

    def test_a_messy_table(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        shard = self._import(tmp_path, MESSY, "--leave-out", "remark", "--categories", "Code")
        assert {name: column.model_dump(exclude_none=True) for name, column in shard.columns["vitals"].items()} == {
            "Age": {"type": "number", "unit": "years"},
            "Sex": {"type": "category", "values": ["f", "m"]},
            "Smoker": {"type": "category", "values": ["no", "yes"]},
            "CRP": {"type": "number", "unit": "mg/L"},
            "Code": {"type": "category", "values": ["007", "008", "009"]},
        }
        rows = [dict(record.rows["vitals"].cells) for record in shard.records]
        assert rows[0] == {"Age": 63, "Sex": "f", "Smoker": "yes", "CRP": 12.5, "Code": "007"}
        assert rows[1] == {"Sex": "m", "Smoker": "no", "Code": "008"}
        assert [record.id for record in shard.records] == ["1", "2", "3", "5", "9"]  # the row of 4 is empty
        said = capsys.readouterr().out
        for part in (
            "column Diagnosis is not a feature",
            "column Admitted is left out: it has dates or times",
            "column Empty is left out: it is empty",
            "column Remark is left out (--leave-out)",
            "5 of 6 rows",
            "5 columns: Age (years), Sex (2 categories)",
            "left out, labels without a file: 4",
        ):
            assert part in said

    def test_without_labels_and_with_an_own_table_of_labels(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shard = self._import(tmp_path, MESSY, "--unlabelled", labels=False)
        assert len(shard.records) == 6
        assert "Diagnosis" in shard.columns["vitals"]  # nobody has said that it is the label
        (tmp_path / "labels.csv").write_text("patient,diagnosis\n1,a\n2,b\n4,b\n8,a\n")
        more = ["--labels", str(tmp_path / "labels.csv"), "--label-column", "diagnosis", "--out", str(tmp_path / "two")]
        (tmp_path / "shard").rename(tmp_path / "one")
        assert call("import", f"vitals={tmp_path / 'records.csv'}", "--id-column", "patient", *more) == 0
        assert [record.id for record in Shard.open(tmp_path / "two").records] == ["1", "2"]
        said = capsys.readouterr().out
        assert "left out, vitals without a label: 3, 5, 9" in said
        assert "column Diagnosis is not a feature" in said

    def test_all_mistakes_at_once(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        lines = ["patient,age,temp,dose,weight,diagnosis"]
        lines += [f'{n},{n},"36,{n}",{"<5" if n == 3 else n},x,{"ab"[n % 2]}' for n in (*range(9), 8)]
        with pytest.raises(AssertionError):
            self._import(tmp_path, "\n".join(lines), "--units", "weight=kg,pulse=bpm", "--numbers", "weight,puls")
        said = capsys.readouterr().err
        for part in (
            "line 11: id '8' appears twice",
            "column temp: 9 of 9 cells are not numbers, e.g. '36,0' (line 2), '36,1' (line 3)",
            "decimal commas: add --decimal-comma",
            "column dose: 1 of 9 cells are not numbers, e.g. '<5' (line 5)",
            "column weight: 9 of 9 cells are not numbers, e.g. 'x' (line 2)",
            "--units: no table has a column 'pulse'",
            "--numbers: no table has a column 'puls'",
        ):
            assert part in said

    def test_names_are_left_out_and_a_copy_of_the_label_is_noted(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        lines = ["patient,name,outcome,diagnosis"]
        lines += [f"{n},Name {n},{'xy'[n % 2]},{'ab'[n % 2]}" for n in range(30)]
        shard = self._import(tmp_path, "\n".join(lines))
        assert list(shard.columns["vitals"]) == ["outcome"]
        said = capsys.readouterr().out
        assert "column name is left out: it has 30 different texts in 30 cells" in said
        assert "column outcome determines the label" in said

    def test_a_column_with_several_codes_per_label_is_noted(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        lines = ["patient,code,ward,age,diagnosis"]
        lines += [f"{n},{'CDEF'[n % 4]},{n % 3},{n},{'ab'[n % 2]}" for n in range(24)]
        self._import(tmp_path, "\n".join(lines), "--categories", "ward")
        said = capsys.readouterr().out
        assert "column code determines the label" in said
        assert not any(f"column {name} determines" in said for name in ("ward", "age"))

    def test_numbers_that_are_too_large_are_a_mistake(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        lines = ["patient,since,diagnosis", *(f"{n},17000000000{n:02},a" for n in range(9))]  # milliseconds since 1970
        with pytest.raises(AssertionError):
            self._import(tmp_path, "\n".join(lines))
        said = capsys.readouterr().err
        assert "column since: 9 of 9 numbers, e.g. '1700000000000' (line 2)" in said
        assert list(self._import(tmp_path, "\n".join(lines), "--categories", "since").columns["vitals"]) == ["since"]

    def test_ids_that_differ_only_in_their_unicode_form_are_the_same_id(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(AssertionError):
            self._import(tmp_path, "patient,age,diagnosis\n\u00e9,1,a\ne\u0301,2,b\n")
        said = capsys.readouterr().err
        assert said.count("line 3: id 'e\u0301' appears twice") == 2  # as a row and as a label

    @pytest.mark.parametrize("cell", ["{n}%", "\u2212{n}", "1e40{n}", "{n},5 %"])
    def test_numbers_in_another_spelling_are_no_categories(
        self, cell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        lines = ["patient,dose,diagnosis", *(f'{n},"{cell.format(n=n)}",a' for n in range(1, 9))]
        with pytest.raises(AssertionError):
            self._import(tmp_path, "\n".join(lines))
        assert "column dose: 8 of 8 cells are not numbers" in capsys.readouterr().err
        assert list(self._import(tmp_path, "\n".join(lines), "--categories", "dose").columns["vitals"]) == ["dose"]

    def test_a_table_needs_labels(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(AssertionError):
            self._import(tmp_path, MESSY, labels=False)
        assert "vitals needs --labels TABLE" in capsys.readouterr().err


class TestInspect:
    def test_the_distributions_and_problems(
        self, shards: list[Shard], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        ranged = {"age": Number(type="number", unit="years", range=[0, 60]), "sex": SEX}
        write_shard(tmp_path / "other", [{"age": 50 + n, "sex": "fmx"[n % 3]} for n in range(20)], ranged)
        raw = parse(RAW, "test").to_yaml()
        (tmp_path / "wards.yaml").write_text(raw)
        more = ("--out", tmp_path / "page.html", "--test", tmp_path / "other", "--with", tmp_path / "wards.yaml")
        assert call("inspect", shards[0].folder, *more) == 0
        said = capsys.readouterr().out
        for part in ("column of vitals", "number, years", "15.8%", "m 17, f 17", "would accept this site"):
            assert part in said
        page = (tmp_path / "page.html").read_text()
        assert "Table vitals" in page
        assert "number, years" in page
        assert call("inspect", tmp_path / "other", "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert told["tables"]["vitals"]["sex"]["counts"] == {"f": 7, "m": 7, "x": 6}
        assert sum(told["tables"]["vitals"]["age"]["histogram"]) == 20
        assert (
            "vitals, column age: 9 numbers are outside of the range [0.0, 60.0], and count as missing"
            in (told["attention"])
        )
        assert "vitals, column sex: columns.json does not list the categories x" in told["attention"]

    def test_two_shards_with_other_columns(self) -> None:
        here = {"vitals": {"age": AGE, "sex": SEX, "pulse": AGE}}
        there = {"vitals": {"age": SEX, "sex": Category(type="category", values=["f", "d"])}}
        assert list(unlike_columns(here, there)) == [
            "vitals: only this shard has the column pulse",
            "vitals, column age: its type is number, in the other shard its type is category",
            "vitals, column sex: only this shard has m",
            "vitals, column sex: only the other shard has d",
        ]

    def test_a_column_that_tells_the_label_is_named(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_shard(tmp_path / "one", [{"sex": "fm"[n % 2], "age": n % 3} for n in range(12)])
        assert call("inspect", tmp_path / "one") == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "vitals, column sex: it determines the label" in said
        assert "vitals, column age: it" not in said

    def test_a_shard_without_the_table_can_be_inspected(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        info = ShardInfo(site="words", classes=["a", "b"], modalities=["text"])
        ShardWriter(tmp_path / "words", info).write(
            [Example(str(n), "ab"[n % 2], {"text": Media.text("x")}) for n in range(9)]
        )
        (tmp_path / "wards.yaml").write_text(parse(RAW, "test").to_yaml())
        assert call("inspect", tmp_path / "words", "--with", tmp_path / "wards.yaml") == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "the experiment has an encoder for vitals, but the shard has no vitals" in said

    def test_init_writes_an_experiment_for_tables(self, shards: list[Shard], tmp_path: Path) -> None:
        assert call("init", tmp_path / "study", "--shards", tmp_path) == 0
        written = read(tmp_path / "study" / "experiment.yaml")
        assert written.model.encoders["vitals"]["name"] == "table"


class TestPredictions:
    @pytest.fixture
    def run(self, shards: list[Shard], tmp_path: Path) -> Path:
        """The folder of a run over the engine `inprocess`."""
        (tmp_path / "wards.yaml").write_text(parse(RAW, "test").to_yaml())
        more = ("--engine", "inprocess", "--shards", tmp_path, "--run-dir", tmp_path / "run")
        assert call("run", tmp_path / "wards.yaml", *more) == 0
        return tmp_path / "run"

    def test_rows_are_predicted_and_an_exported_model_predicts_the_same(
        self, run: Path, shards: list[Shard], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rows = [{"vitals": {"age": 63, "sex": None}}, {"vitals": {"sex": "x", "age": 60, "pulse": 3}, "text": "stable"}]
        assert call("export", run, "--out", tmp_path / "model") == 0
        one, two = (load_model(folder).predict(rows) for folder in (run, tmp_path / "model"))
        assert one == two
        assert [prediction.modalities for prediction in one] == [("vitals",), ("text", "vitals")]
        assert one[0].notes == {}
        assert len(one[1].notes["vitals"]) == 2
        with pytest.raises(DataError, match="example 1, vitals: age: 'old' is a text"):
            load_model(run).predict([{"vitals": {"age": "old"}}])
        (tmp_path / "row.json").write_text(json.dumps(rows[0]["vitals"]))
        capsys.readouterr()
        for value in ('{"age": 63, "sex": null}', str(tmp_path / "row.json")):
            assert call("predict", run, "--input", f"vitals={value}", "--json") == 0
            told = json.loads(capsys.readouterr().out)
            assert told["probabilities"] == pytest.approx(dict(one[0].probabilities))
        assert call("predict", run, "--input", "vitals=63") == 2
        assert "a JSON object of columns and cells is needed" in capsys.readouterr().err
        assert call("predict", run, "--shard", shards[0].folder, "--json") == 0
        said = capsys.readouterr()
        first = json.loads(said.out.splitlines()[1])
        cells = shards[0].records[1].rows["vitals"].cells
        assert first["probabilities"] == pytest.approx(
            dict(load_model(run).predict([{"vitals": cells}])[0].probabilities)
        )

    def test_what_the_model_does_not_know_is_counted(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        columns = {"age": AGE, "sex": Category(type="category", values=["f", "x"])}
        write_shard(tmp_path / "other", [{"age": 50, "sex": "fx"[n % 2]} for n in range(9)], columns)
        assert call("predict", run, "--shard", tmp_path / "other") == 0
        said = capsys.readouterr().err
        assert "4 x vitals: column sex: a category that is not agreed, treated as unknown" in said

    def test_a_shard_with_other_units_is_not_predicted(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        months = {"age": Number(type="number", unit="months"), "sex": SEX}
        write_shard(tmp_path / "months", [row(n) for n in range(9)], months)
        assert call("predict", run, "--shard", tmp_path / "months") == 2
        assert "column age: its unit is months here, agreed is a number with the unit years" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["simulation", "processes"])
def test_every_engine_gives_the_same_model(engine: str, shards: list[Shard], tmp_path: Path) -> None:
    (tmp_path / "wards.yaml").write_text(parse(RAW | {"federation": {"rounds": 2}}, "test").to_yaml())
    models = []
    for name in ("inprocess", engine):
        folder = tmp_path / f"run-{name}"
        more = ("--engine", name, "--shards", tmp_path, "--run-dir", folder)
        assert call("run", tmp_path / "wards.yaml", *more) == 0
        models.append(load_file(folder / "model.safetensors"))
    assert models[0].keys() == models[1].keys()
    assert all(value.equal(models[1][name]) for name, value in models[0].items())
