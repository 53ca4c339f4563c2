"""Experiments: every mistake in one message, every shipped config loads."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import RAW, ROOT, experiment
from hypothesis import given, settings
from hypothesis import strategies as st

from common.config.component import families, find, names
from common.config.reading import from_json, parse, read
from common.errors import ConfigError
from deploy.study.bench.suite import read_suite

SUITES = sorted((ROOT / "configs" / "bench").glob("*.yaml"))
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_loads_is_complete_and_says_how_to_run_it(path: Path) -> None:
    chosen = read(path)
    assert chosen.name == path.stem
    assert from_json(chosen.to_json()) == chosen
    assert parse(yaml.safe_load(chosen.to_yaml()), "again") == chosen
    header = path.read_text().split("\nname:")[0]
    assert f"fedmosaic run configs/{path.name}" in header


def test_every_method_is_in_some_config() -> None:
    found = {read(path).method["name"] for path in CONFIGS}
    for path in SUITES:
        suite = read_suite(path, {})
        for setting in suite.settings:
            found |= {suite.experiment_of(setting, row, 1, 0.1).method["name"] for row in suite.rows_of(setting)}
    assert found == set(names("method"))


@pytest.mark.parametrize("family", families())
def test_every_member_of_a_family_is_found_by_its_file_name(family: str) -> None:
    assert names(family)
    for name in names(family):
        assert find(family, name).__doc__


def test_all_mistakes_come_in_one_message() -> None:
    raw = copy.deepcopy(RAW)
    raw["seed"] = "three"
    raw["data"]["clients"] = 0
    raw["data"]["set"]["name"] = "digits-mni"
    raw["data"]["partition"] = {"name": "dirichlet", "alpha": -1}
    raw["model"]["encoders"]["audio"]["widht"] = 8
    raw["method"] = {"name": "fedcmi", "kappa": -2, "lamda": 1}
    raw["train"].pop("lr")
    raw["fedration"] = {}
    with pytest.raises(ConfigError) as caught:
        parse(raw, "bad.yaml")
    text = str(caught.value)
    for expected in (
        "seed: ",
        "data.clients: ",
        f"data.set: unknown data set 'digits-mni'; known: {', '.join(names('data set'))}; did you mean 'digits-mini'?",
        "data.partition.dirichlet.alpha: ",
        "model.encoders.audio.widht: unknown option 'widht'",
        "did you mean 'width'?",
        "method.kappa: ",
        "method.lamda: unknown option",
        "train.lr: is required",
        "fedration: unknown option 'fedration'; known: name, seed, task, metrics, data",
    ):
        assert expected in text, expected
    assert len(caught.value.mistakes) == 9
    assert "bad.yaml: 9 mistakes" in text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"method": "fedcmy"},
            "unknown method 'fedcmy'; known: " + ", ".join(names("method")) + "; did you mean 'fedcmi'?",
        ),
        ({"strategy": {"name": "x"}}, "strategy: unknown strategy 'x'; known: " + ", ".join(names("strategy"))),
        ({"model__encoders__audio": "spectogram"}, "did you mean 'spectrogram'?"),
        (
            {"model__encoders__smell": "image"},
            "unknown modality of the data set 'smell'; known: audio, image",
        ),
        ({"model__encoders__id": "image"}, "cannot have this name"),
        ({"model__architecture": {"name": "late-fusion"}}, "the method needs 'two-projector'"),
        ({"data__missing": {"rates": {"smell": 0.1}}}, "data.missing.rates.smell"),
        ({"data__missing": {"unimodal_clients": {"audio": 0.8, "image": 0.8}}}, "more than 1"),
        ({"federation__sample": 9}, "federation.sample is 9, but data.clients is 2"),
        ({"federation__min_replies": 5}, "federation.min_replies is 5"),
        ({"name": "../escape"}, "name: "),
        ({"data__set": 3}, "data.set: needs a name"),
        ({"federation__optimizer": {"name": "fedadamm"}}, "did you mean 'fedadam'?"),
        ({"federation__optimizer": {"name": "fedadam", "tua": 1}}, "beta_2, tau, name; did you mean 'tau'?"),
        ({"data__partition": {"name": "dirichlet", "alfa": 1}}, "did you mean 'alpha'?"),
        ({"data__partition": {"alpha": 1}}, "data.partition: needs a name"),
        ({"train__lr": float("nan")}, "train.lr"),
        ({"model__encoders__audio": {"name": "spectrogram", "seconds": 0.01}}, "fewer than n_fft"),
    ],
)
def test_a_mistake_names_the_option_and_the_remedy(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        experiment(**changes)
    assert expected in str(caught.value)


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "a: \x00", "name: {1: 2}", "data: 2001-01-01"])
def test_what_is_no_experiment_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        read(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["name", "seed", "data", "model", "method", "strategy", "train", "federation", "wire"]),
    JSON,
)
def test_any_value_in_any_section_is_accepted_or_refused_with_our_error(section: str, value: Any) -> None:
    try:
        parse({**copy.deepcopy(RAW), section: value}, "fuzz")
    except ConfigError as error:
        assert error.mistakes


def test_overrides(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(RAW))
    assert read(path, {"train.lr": 0.5, "data.set.audio_snr_db": 3}).train.lr == 0.5
    with pytest.raises(ConfigError, match="name is not a section"):
        read(path, {"name.x": 1})
