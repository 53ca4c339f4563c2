"""Attacks on a site, on the server and on who looks at a run: what docs/explanation/security.md promises, tried."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import experiment
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rich.console import Console
from test_policy import packed, policy, query_message, sent, text, train_message

from client.site import Site
from client.site_state import SiteState
from common.blocks import get_params
from common.build import build_model
from common.data.loader import load
from common.data.prepared import cache
from common.data.prepared.frozen import frozen_column
from common.data.shard import Shard
from common.errors import WireError
from common.exchange import wire
from common.exchange.privacy import clip, norm
from common.findings import Findings
from common.media.values import Value, read
from deploy.engines.display import show_concerns, show_sites
from deploy.engines.in_process import claim_identity
from deploy.terminal import terminal

BOTH = "client-1"
SILENT = {"metrics": False, "label_counts": False, "local_dp": {"clip": 1.0, "noise": 100.0}}


@pytest.fixture(autouse=True)
def _in_process() -> None:
    claim_identity()


@pytest.fixture
def both(tiny_shards: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_shards / BOTH, tmp_path / "shard")
    return tmp_path / "shard"


def huge(chosen: Any, size: float) -> Any:
    """A training message whose parameters overflow whatever they meet."""
    message = train_message(chosen, ["audio", "image"])
    params = {name: torch.full_like(value, size) for name, value in sent(chosen, ["audio", "image"]).items()}
    message.content["params"] = wire.pack(params)
    return message


class TestOracles:
    """A server that sends messages made to be refused or not, by what the examples are."""

    def test_weights_that_overflow_give_noise_and_never_a_refusal(self, both: Path, tmp_path: Path) -> None:
        site, chosen = Site(both, policy=policy(tmp_path, **SILENT)), experiment()
        for size in (1e38, 3e38, 1e30, 0.0):
            reply = site.answer(huge(chosen, size))
            assert "error" not in text(reply), text(reply)
            change = wire.unpack(reply.array_records["params"])
            assert all(bool(value.isfinite().all()) for value in change.values())
        assert SiteState(tmp_path / "site.state.json").read().updates == 4

    def test_all_refusals_after_an_example_was_touched_have_one_text(self, both: Path, tmp_path: Path) -> None:
        quiet = {"metrics": False, "label_counts": False}
        site, said = Site(both, policy=policy(tmp_path, **quiet)), set()
        for message in (
            train_message(experiment(train__lr=1e12, train__epochs=5), ["audio", "image"]),  # diverges
            huge(experiment(), float("nan")),  # parameters that are not finite
            train_message(experiment(), ["audio"]),  # of another site
            train_message(experiment(data__max_unreadable=0.0, data__complete_only=True), ["audio", "image"]),
        ):
            answer = text(site.answer(message))
            said |= {answer["error"]} if "error" in answer and "introduce" not in answer else set()
        few = Site(both, policy=policy(tmp_path, **quiet, min_examples=10**6))
        for message in (query_message(experiment()), train_message(experiment(), ["audio", "image"])):
            said.add(text(few.answer(message))["error"])
        assert len(said) == 1 and "keeps it there" in said.pop()

    def test_numbers_beyond_the_machines_are_refused_before_an_example_is_touched(
        self, both: Path, tmp_path: Path
    ) -> None:
        site = Site(both, policy=policy(tmp_path, **SILENT))
        for keys in (("federation", "rounds"), ("train", "epochs"), ("seed",), ("data", "clients"), ("train", "lr")):
            raw = json.loads(experiment().to_json())
            inner = raw
            for key in keys[:-1]:
                inner = inner[key]
            inner[keys[-1]] = 10**400
            message = train_message(experiment(), ["audio", "image"], experiment=json.dumps(raw))
            assert "ConfigError" in text(site.answer(message))["error"]
        assert not (tmp_path / "site.state.json").exists()

    def test_introductions_are_counted_by_the_day(self, both: Path, tmp_path: Path) -> None:
        site = Site(both, policy=policy(tmp_path, max_introductions=3))
        answers = [text(site.answer(query_message(experiment(seed=seed)))) for seed in range(5)]
        assert ["error" in answer for answer in answers] == [False, False, False, True, True]
        assert "max_introductions" in answers[-1]["error"]
        state = SiteState(tmp_path / "site.state.json")
        kept = state.read().model_copy(update={"day": "2001-01-01"})
        state.path.write_text(kept.model_dump_json())
        assert "error" not in text(site.answer(query_message(experiment())))

    def test_the_split_does_not_tell_whether_an_id_is_there(self, both: Path, tmp_path: Path) -> None:
        """With the seed alone, a server that guesses an id knows in which part it would be."""
        shard, chosen = Shard.open(both), experiment(data__validation=0.5)
        model = build_model(chosen, len(shard.info.classes))
        loaded = load(shard, {m: model.encoder(m) for m in model.modalities})
        sizes = {len(loaded.divide(0.5, 1, secret)[0]) for secret in ("", "a", "b", "c", "d", "e")}
        assert len(sizes) > 2
        secrets = set()
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            site = Site(both, policy=policy(tmp_path / name))
            first, again = (text(site.answer(train_message(chosen, ["audio", "image"]))) for _ in range(2))
            assert first["num_examples"] == again["num_examples"]
            secrets.add(SiteState(tmp_path / name / "site.state.json").read().secret)
        assert len(secrets) == 2 and all(len(secret) == 32 for secret in secrets)

    def test_nothing_is_validated_whose_figures_may_not_leave(
        self, both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("client.site.evaluate", lambda *_: 1 / 0)
        for options in ({"metrics": False}, {"label_counts": False}):
            site = Site(both, policy=policy(tmp_path, **options))
            assert "error" not in text(site.answer(train_message(experiment(), ["audio", "image"])))

    def test_replies_leave_on_a_grid_of_times(
        self, both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slept: list[float] = []
        monkeypatch.setattr("client.policy.time.sleep", slept.append)
        site = Site(both, policy=policy(tmp_path, reply_seconds=1000))
        site.answer(query_message(experiment()))
        assert len(slept) == 1 and 500 < slept[0] < 1000


ANY = st.floats(allow_nan=True, allow_infinity=True, width=64)


class TestClipping:
    @given(arrays(np.float64, st.integers(1, 9), elements=ANY), st.floats(1e-6, 1e6))
    def test_it_holds_for_any_floats(self, values: np.ndarray, bound: float) -> None:
        cut = clip({"a": torch.from_numpy(values[:3].copy()), "b": torch.from_numpy(values[3:].copy())}, bound)
        whole = np.concatenate([value.numpy() for value in cut.values()])
        assert np.isfinite(whole).all()
        assert np.sqrt(np.sum((whole / bound) ** 2)) <= 1 + 1e-9
        if (
            np.isfinite(values).all()
            and np.abs(values).max(initial=0) < 1e100
            and norm({"v": torch.from_numpy(values)}) <= bound
        ):
            assert np.array_equal(whole, values)

    def test_a_variance_that_is_negative_is_refused_before_it_is_used(self, both: Path, tmp_path: Path) -> None:
        chosen = experiment(method="fedproto", **{"model__encoders": RESNET})
        message = train_message(chosen, ["audio", "image"])
        params = sent(chosen, ["audio", "image"])
        name = next(name for name in params if name.endswith("running_var"))
        message.content["params"] = wire.pack(params | {name: -params[name]})
        assert f"{name} is a running variance, but has negative values" in text(Site(both).answer(message))["error"]
        with pytest.raises(WireError, match="negative"):
            wire.check_variances({name: torch.tensor([1.0, -1e-9])})

    def test_a_buffer_that_is_no_number_does_not_switch_it_off(
        self, both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        chosen = experiment(model__encoders=RESNET)
        limit = {"local_dp": {"clip": 0.001, "noise": 1e-9}}

        def spoils(model: Any, *_: object) -> dict[str, float]:
            with torch.no_grad():
                for name, value in model.state_dict().items():
                    if name.endswith("running_mean"):
                        value.fill_(float("nan"))
                    elif value.is_floating_point():
                        value.add_(30.0)
            return {}

        monkeypatch.setattr("client.site.train", spoils)
        reply = Site(both, policy=policy(tmp_path, **limit)).answer(train_message(chosen, ["audio", "image"]))
        params, before = wire.unpack(reply.array_records["params"]), sent(chosen, ["audio", "image"])
        moved = {name: params[name].double() - before[name].double() for name in before}
        assert norm(moved) < 0.01 and len(packed(reply)) > 1000


RESNET = {
    "audio": {"name": "spectrogram", "width": 8, "filters": 8},
    "image": {"name": "image", "backbone": "resnet18", "size": 32, "width": 8},
}


class TestDisks:
    def test_features_that_a_server_asks_for_do_not_fill_the_disk(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FEDMOSAIC_CACHE_GB", "0.0001")  # 100 kB
        (tmp_path / "shard.json").write_text(json.dumps({"site": "s", "classes": ["a"], "modalities": ["text"]}))
        lines = [json.dumps({"id": str(i), "label": "a", "text": f"a text {i}"}) for i in range(20)]
        (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
        shard = Shard.open(tmp_path)
        values = [Value(f"a text {i}") for i in range(20)]
        for number in range(8):
            frozen_column(shard, "text", Asked(number), values)  # type: ignore[arg-type]
            kept = list((tmp_path / "cache").iterdir())
            assert sum(path.stat().st_size for path in kept) <= 100_000
        assert 1 <= len(kept) <= 4
        monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: Full())
        frozen_column(shard, "text", Asked(99), values)  # type: ignore[arg-type]
        assert sorted((tmp_path / "cache").iterdir()) == sorted(kept)

    @pytest.mark.parametrize(
        "encoder",
        [
            {"name": "open-clip-image", "model": "birds-coca", "grid": 10**6},
            {"name": "vision-transformer", "model": "birds-vit", "grid": 65},
            {"name": "image", "size": 100_000},
            {"name": "frames", "frames": 10**6},
            {"name": "mixed", "members": [{"name": "image"}] * 99},
        ],
    )
    def test_sizes_that_a_server_asks_for_are_bounded(
        self, encoder: dict[str, Any], both: Path, tmp_path: Path
    ) -> None:
        raw = json.loads(experiment().to_json())
        raw["model"]["encoders"]["image"] = encoder
        message = train_message(experiment(), ["audio", "image"], experiment=json.dumps(raw))
        answer = text(Site(both, policy=policy(tmp_path)).answer(message))
        assert answer["error"].startswith("ConfigError") and not (tmp_path / "site.state.json").exists()

    def test_memory_that_a_server_asks_for_is_bounded(
        self, both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wide = {"name": "spectrogram", "seconds": 3600.0, "hop": 1, "n_fft": 4096}
        message = query_message(experiment(model__encoders={"audio": wide, "image": {"name": "image"}}))
        assert "GB of memory" in text(Site(both).answer(message))["error"]
        monkeypatch.setenv("FEDMOSAIC_PREPARED_GB", "0.000001")
        assert "FEDMOSAIC_PREPARED_GB" in text(Site(both).answer(query_message(experiment())))["error"]

    def test_what_is_written_is_its_users_alone(self, tmp_path: Path) -> None:
        from common.files import whole_folder, write_whole

        write_whole(tmp_path / "a", b"x")
        assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
        from deploy.cli import main

        (tmp_path / "e.yaml").write_text(yaml.safe_dump({}))
        with pytest.raises(SystemExit):
            main(["run", str(tmp_path / "e.yaml")])
        with whole_folder(tmp_path / "made"):
            pass
        assert (tmp_path / "made").stat().st_mode & 0o777 == 0o700


class Asked:
    """A frozen encoder that a server made up."""

    def __init__(self, number: int) -> None:
        self._number = number

    def described(self) -> str:
        return f"made up {self._number}"

    def blank(self) -> torch.Tensor:
        return torch.zeros(3, 64, dtype=torch.float16)

    def extract(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(inputs), 3, 64)

    @property
    def tower(self) -> Any:
        return SimpleNamespace(inputs=lambda raw: torch.zeros(1))


class Full:
    free = 1 << 20


class TestFiles:
    def test_a_file_that_names_another_program_is_not_opened(self, tmp_path: Path) -> None:
        path = tmp_path / "x.png"
        path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n")
        with pytest.raises(ValueError, match=r"x\.png"):
            read(path)

    @pytest.mark.parametrize("count", [10**13, 10**18, -1, 5])
    def test_a_header_that_promises_more_than_there_is_costs_nothing(self, count: int, tmp_path: Path) -> None:
        path = tmp_path / "x.npy"
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({count},), }}".ljust(117) + "\n"
        path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(32))
        with pytest.raises(ValueError, match=r"x\.npy"):
            read(path)

    def test_an_archive_is_no_array(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "x.npz", a=np.zeros(3))
        (tmp_path / "x.npz").rename(tmp_path / "x.npy")
        with pytest.raises(ValueError, match=r"x\.npy"):
            read(tmp_path / "x.npy")


EVIL = ["[/b]x", "[red]y[/]", ":bomb:", "\x1b[2Jz", "a\u202eb", "c\x9bd"]


def test_names_are_nothing_but_text_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    found = {"audio": Findings(values=3, unreadable=1, reasons={EVIL[0]: 1}, forms={EVIL[1]: 3}).model_dump()}
    line = {"sites": {name: {"findings": found, "local_dp": EVIL[0]} for name in EVIL}, "classes": EVIL}
    console: Console = terminal()
    show_sites(console, line)
    show_concerns(console, line["sites"], EVIL)
    shown = capsys.readouterr().out
    assert "[/b]x" in shown and "[red]y[/]" in shown and ":bomb:" in shown
    assert not {"\x1b", "\u202e", "\x9b"} & set(shown)


def test_parameters_of_the_initial_model_are_what_honest_variances_are() -> None:
    wire.check_variances(get_params(build_model(experiment(model__encoders=RESNET), 10)))
