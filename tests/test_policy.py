"""What a site lets go: every rule is checked on the bytes of the replies."""

import io
import json
import os
import shutil
import tomllib
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import ROOT, experiment
from flwr.app import Context, Message, RecordDict
from flwr.cli.build import build_fab_from_disk

from client.app import query
from client.policy import Policy, read_policy
from client.site import Site
from client.site_state import SiteState
from common.blocks import Params, get_params, select
from common.build import build_model
from common.config.experiment import Experiment
from common.config.reading import for_clients
from common.data.completed import LINES, folder_of
from common.data.shard import Shard
from common.errors import PolicyError, RunError
from common.exchange import wire
from deploy.engines.app_folder import make_app_folder
from deploy.engines.in_process import InProcessGrid, claim_identity
from deploy.engines.launch import FlowerCommand, Link, executable
from deploy.engines.processes import Processes, free_ports, wait_for_port
from deploy.hosts import clientapp
from deploy.hosts.clientapp import check_fab, commands_folder
from deploy.hosts.environment import SETTINGS
from server.record.run_folder import RunFolder
from server.report.page import write_report
from server.rounds.federation import Federation

BOTH = "client-1"
"""The shard of the tiny experiment with both modalities; the other has audio only."""
FIGURES = {"losses", "validation", "unreadable", "device", "seconds"}


@pytest.fixture(autouse=True)
def _in_process() -> None:
    claim_identity()


@pytest.fixture
def both(tiny_shards: Path) -> Path:
    assert Shard.open(tiny_shards / BOTH).info.modalities == ["audio", "image"]
    return tiny_shards / BOTH


def policy(folder: Path, **options: Any) -> Path:
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump(options) if options else "{}")
    return path


def query_message(chosen: Experiment) -> Message:
    return Message(wire.record(for_clients(chosen)), dst_node_id=1, message_type="query")


def train_message(chosen: Experiment, held: list[str], number: int = 1, **changes: Any) -> Message:
    content = {**for_clients(chosen), "round": number, "modalities": held, **changes}
    return Message(wire.record(content, wire.pack(sent(chosen, held))), dst_node_id=1, message_type="train")


def sent(chosen: Experiment, held: list[str]) -> Params:
    return select(get_params(build_model(chosen, 10)), held)


def text(reply: RecordDict) -> dict[str, Any]:
    """What a reply says; it must hold nothing besides this and packed parameters."""
    assert set(reply) <= {"body", "params"}
    assert set(reply.config_records["body"]) == {"json"}
    content = json.loads(str(reply.config_records["body"]["json"]))
    assert isinstance(content, dict)
    return content


def packed(reply: RecordDict) -> bytes:
    return reply.array_records["params"]["params"].data


def without_images(shard: Path, folder: Path) -> Path:
    """A copy of a shard that never had images."""
    shutil.copytree(shard, folder, ignore=shutil.ignore_patterns("image"))
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    kept = [{key: value for key, value in line.items() if key != "image_file_name"} for line in lines]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    info = json.loads((folder / "shard.json").read_text()) | {"modalities": ["audio"]}
    (folder / "shard.json").write_text(json.dumps(info))
    return folder


class TestModalities:
    def test_one_that_may_not_take_part_leaves_the_same_bytes_as_a_shard_without_it(
        self, both: Path, tmp_path: Path
    ) -> None:
        chosen = experiment(data__missing={})
        restricted = tmp_path / "restricted"
        shutil.copytree(both, restricted)
        for picture in (restricted / "image").iterdir():
            picture.write_bytes(b"whoever reads this counts it as unreadable")
        one = Site(restricted, policy=policy(tmp_path, modalities=["audio"]))
        SiteState(tmp_path / "site.state.json").secret()  # the same for both, as is the split that is keyed with it
        (tmp_path / "other").mkdir()
        shutil.copy(tmp_path / "site.state.json", tmp_path / "other")
        other = Site(without_images(both, tmp_path / "without"), policy=policy(tmp_path / "other"))
        assert one.answer(query_message(chosen)) == other.answer(query_message(chosen))
        replies = [site.answer(train_message(chosen, ["audio"])) for site in (one, other)]
        assert packed(replies[0]) == packed(replies[1])
        said = [{key: value for key, value in text(reply).items() if key != "seconds"} for reply in replies]
        assert said[0] == said[1]
        assert said[0]["modalities"] == ["audio"]
        assert set(said[0]["validation"]) == {"audio"}

    def test_what_was_generated_for_it_does_not_take_part_either(self, tiny_shards: Path, tmp_path: Path) -> None:
        shard = tmp_path / "shard"
        shutil.copytree(tiny_shards / "client-0", shard)
        opened = Shard.open(shard)
        completer = {"name": "retrieval", "source": "audio", "pool": "digits-mini"}
        chosen = experiment(completion={"image": completer})
        folder = folder_of(opened, "image", chosen.completion["image"])
        folder.mkdir(parents=True)
        shutil.copy(next((tiny_shards / BOTH / "image").iterdir()), folder / "x.png")
        lines = [json.dumps({"id": record.id, "file_name": "x.png"}) + "\n" for record in opened.records]
        (folder / LINES).write_text("".join(lines))
        assert text(Site(shard).answer(query_message(chosen)))["modalities"] == ["audio", "image"]
        restricted = Site(shard, policy=policy(tmp_path, modalities=["audio"]))
        assert text(restricted.answer(query_message(chosen)))["modalities"] == ["audio"]

    def test_nothing_made_from_it_takes_part(self, both: Path, tmp_path: Path) -> None:
        shard = tmp_path / "shard"
        shutil.copytree(both, shard)
        lines = [json.loads(line) for line in (shard / "metadata.jsonl").read_text().splitlines()]
        cut = [{key: line[key] for key in ("id", "label", "image_file_name")} for line in lines]
        whole = next(line for line in lines if "audio_file_name" in line)
        (shard / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*cut, whole | {"id": "w"}]))
        chosen = experiment(completion={"audio": {"name": "retrieval", "source": "image", "pool": "digits-mini"}})
        folder = folder_of(Shard.open(shard), "audio", chosen.completion["audio"])
        folder.mkdir(parents=True)
        sound = next((both / "audio").iterdir())
        shutil.copy(sound, folder / sound.name)
        made = [json.dumps({"id": line["id"], "file_name": sound.name}) + "\n" for line in lines]
        (folder / LINES).write_text("".join(made))
        assert text(Site(shard).answer(query_message(chosen)))["num_examples"] == len(lines) + 1
        restricted = Site(shard, policy=policy(tmp_path, modalities=["audio"]))
        assert text(restricted.answer(query_message(chosen)))["num_examples"] == 1

    def test_a_site_left_without_any_says_so(self, both: Path, tmp_path: Path) -> None:
        said = text(Site(both, policy=policy(tmp_path, modalities=["text"])).answer(query_message(experiment())))
        assert said == {
            "site": BOTH,
            "error": "PolicyError: the shard has none of the modalities that this site's policy allows",
        }


class TestFigures:
    def test_without_a_policy_all_of_them_leave(self, both: Path, tmp_path: Path) -> None:
        for site in (Site(both), Site(both, policy=policy(tmp_path))):
            said = text(site.answer(train_message(experiment(), ["audio", "image"])))
            assert set(said) == FIGURES | {"site", "round", "modalities", "num_examples"}
            introduced = text(site.answer(query_message(experiment())))
            assert introduced["local_dp"] == "" and introduced["findings"]["audio"]["values"] > 0

    def test_without_metrics_the_number_of_examples_is_the_only_figure(self, both: Path, tmp_path: Path) -> None:
        site = Site(both, policy=policy(tmp_path, metrics=False))
        said = text(site.answer(train_message(experiment(), ["audio", "image"])))
        assert set(said) == {"site", "round", "modalities", "num_examples"}
        said = text(site.answer(query_message(experiment())))
        assert set(said) == {"site", "modalities", "classes", "num_examples", "bases", "local_dp"}

    def test_without_label_counts_no_validation_leaves(self, both: Path, tmp_path: Path) -> None:
        site = Site(both, policy=policy(tmp_path, label_counts=False))
        said = text(site.answer(train_message(experiment(), ["audio", "image"])))
        assert set(said) == FIGURES - {"validation"} | {"site", "round", "modalities", "num_examples"}

    def test_without_label_counts_no_method_that_sends_them_is_trained(self, both: Path, tmp_path: Path) -> None:
        chosen = experiment(method="fedproto")
        labels = [record.label for record in Shard.open(both).records]
        reply = Site(both).answer(train_message(chosen, ["audio", "image"]))
        shares = wire.unpack(reply.array_records["params"])["branches.audio.prototypes.shares"]
        assert len(shares) == len(set(labels)) and (shares * len(labels)).round().int().tolist() != [0] * len(shares)
        site = Site(both, policy=policy(tmp_path, label_counts=False))
        for message in (query_message(chosen), train_message(chosen, ["audio", "image"])):
            assert "which method fedproto sends" in text(site.answer(message))["error"]

    def test_a_federation_of_silent_sites_ends_with_a_report(self, tiny_shards: Path, tmp_path: Path) -> None:
        silent = policy(tmp_path, metrics=False)
        sites = [Site(tiny_shards / f"client-{i}", policy=silent) for i in range(2)]
        chosen = experiment(data__validation=0.3)
        federation = Federation(chosen, InProcessGrid(sites), None, RunFolder(tmp_path / "run", chosen))
        federation.run()
        lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
        assert [(line["losses"], line["validation"]) for line in lines] == [({}, {})] * 3
        assert federation.summary()["scores"] == {}
        about = {"name": "x", "status": "completed", "reason": "", "engine": "x", "method": "fedcmi", "seconds": 1.0}
        federation.run_folder.summary(about | federation.summary())
        write_report(tmp_path / "run")
        assert "client-1" in (tmp_path / "run" / "report.html").read_text()

    def test_silent_and_open_sites_are_averaged_over_those_that_speak(self, tiny_shards: Path, tmp_path: Path) -> None:
        sites = [Site(tiny_shards / "client-0"), Site(tiny_shards / "client-1", policy=policy(tmp_path, metrics=False))]
        chosen = experiment(federation__rounds=1)
        Federation(chosen, InProcessGrid(sites), None, RunFolder(tmp_path / "run", chosen)).run()
        line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[1])
        assert line["losses"] == line["clients"]["client-0"]["losses"] != {}
        assert line["clients"]["client-1"]["losses"] == {}
        for subset, own in line["clients"]["client-0"]["validation"].items():
            assert line["validation"][subset].items() >= own.items()

    def test_without_metrics_an_error_leaves_without_its_words(
        self, both: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        diverging = train_message(experiment(train__lr=1e12, train__epochs=5), ["audio", "image"])
        assert "diverged" in text(Site(both).answer(diverging))["error"]
        site = Site(both, policy=policy(tmp_path, metrics=False))
        kept = "the reason is in the site's log; the site's policy keeps it there (metrics)"
        assert text(site.answer(diverging))["error"] == f"PolicyError: {kept}"
        assert "diverged" in caplog.text
        monkeypatch.setattr("client.site.train", lambda *_: 1 / 0)
        message = train_message(experiment(), ["audio", "image"])
        assert text(site.answer(message))["error"] == f"PolicyError: {kept}"
        with pytest.raises(ZeroDivisionError):
            Site(both).answer(train_message(experiment(), ["audio", "image"]))


class TestNumbers:
    def test_no_more_updates_leave_than_the_site_allows_whatever_the_server_says(
        self, tiny_shards: Path, tmp_path: Path
    ) -> None:
        limited = policy(tmp_path, max_updates=3)
        for number, (rounds, left) in enumerate(((2, 2), (2, 3))):
            sites = [Site(tiny_shards / "client-0"), Site(tiny_shards / "client-1", policy=limited)]
            chosen = experiment(federation__rounds=rounds)
            federation = Federation(chosen, InProcessGrid(sites), None, RunFolder(tmp_path / str(number), chosen))
            if left < 3:
                federation.run()
            else:
                with pytest.raises(RunError, match=r"client-1: PolicyError: 3 updates have left this site"):
                    federation.run()
            assert SiteState(tmp_path / "site.state.json").read().updates == left
        again = Site(tiny_shards / "client-1", policy=limited).answer(query_message(experiment()))
        assert "its policy allows 3" in text(again)["error"]

    def test_what_reaches_the_examples_is_counted_before_and_not_at_all_where_it_cannot_be(
        self, both: Path, tmp_path: Path
    ) -> None:
        site = Site(both, policy=policy(tmp_path, max_updates=3, state="here/count.json"))
        message = train_message(experiment(), ["audio", "image"])
        reply = site.answer(message)
        assert "cannot be written: No such file" in text(reply)["error"] and "params" not in reply
        (tmp_path / "here").mkdir()
        site.answer(train_message(experiment(train__lr=1e12, train__epochs=5), ["audio", "image"]))
        assert SiteState(tmp_path / "here" / "count.json").read().updates == 1  # an update that failed told something
        assert "params" in site.answer(message)
        (tmp_path / "here" / "count.json").write_text("{}")
        reply = site.answer(message)
        assert "cannot be read" in text(reply)["error"] and "params" not in reply

    @pytest.mark.parametrize(
        "content", ["", "3", "[]", "{}", '{"updates": -1}', '{"updates": true}', '{"updates": 1.5}', "[" * 9999]
    )
    def test_a_count_that_is_lost_does_not_begin_again(self, content: str, tmp_path: Path) -> None:
        count = SiteState(tmp_path / "count.json")
        assert count.read().updates == 0
        count.path.write_text(content)
        for change in (lambda: count.count_update(5), lambda: count.count_introduction(5), count.secret):
            with pytest.raises(PolicyError, match=r"counts in count\.json"):
                change()

    def test_counting_at_the_same_time_lets_no_more_pass(self, tmp_path: Path) -> None:
        def passes(_: int) -> bool:
            try:
                SiteState(tmp_path / "count.json").count_update(7)
            except PolicyError:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(passes, range(40))) == 7
        assert SiteState(tmp_path / "count.json").read().updates == 7

    def test_an_update_of_too_few_examples_does_not_leave(self, both: Path, tmp_path: Path) -> None:
        chosen = experiment()
        site = Site(both, policy=policy(tmp_path))
        count = text(site.answer(train_message(chosen, ["audio", "image"])))["num_examples"]
        enough = Site(both, policy=policy(tmp_path, min_examples=count))
        assert "params" in enough.answer(train_message(chosen, ["audio", "image"]))
        few = Site(both, policy=policy(tmp_path, min_examples=count + 1))
        for message in (query_message(chosen), train_message(chosen, ["audio", "image"])):
            reply = few.answer(message)
            assert (
                f"the site has fewer training examples than its policy requires (min_examples: {count + 1})"
                in text(reply)["error"]
            )
            assert "params" not in reply


class TestLocalDP:
    def difference(self, site: Site, chosen: Experiment) -> torch.Tensor:
        reply = site.answer(train_message(chosen, ["audio", "image"]))
        params, before = wire.unpack(reply.array_records["params"]), sent(chosen, ["audio", "image"])
        return torch.cat([(params[name].double() - before[name].double()).flatten() for name in before])

    def test_the_difference_is_cut_to_the_norm(self, both: Path, tmp_path: Path) -> None:
        plain = self.difference(Site(both, policy=policy(tmp_path)), experiment())
        clip = float(plain.norm()) / 7
        cut = self.difference(Site(both, policy=policy(tmp_path, local_dp={"clip": clip, "noise": 1e-6})), experiment())
        assert float(cut.norm()) == pytest.approx(clip, rel=1e-3)
        assert torch.nn.functional.cosine_similarity(plain, cut, dim=0) > 0.999

    def test_noise_is_gaussian_of_the_given_size_and_never_the_same(self, both: Path, tmp_path: Path) -> None:
        site = Site(both, policy=policy(tmp_path, local_dp={"clip": 1e-3, "noise": 500.0}))
        one, other = (self.difference(site, experiment()) for _ in range(2))
        assert len(one) > 1000
        for drawn in (one, other, (one - other) / 2**0.5):
            assert float(drawn.std()) == pytest.approx(0.5, rel=0.05)
            assert abs(float(drawn.mean())) < 4 * 0.5 / len(drawn) ** 0.5
            assert float((drawn.abs() < 0.5).double().mean()) == pytest.approx(0.6827, abs=0.03)


class TestFile:
    def test_the_example_loads(self) -> None:
        found = read_policy(ROOT / "deploy" / "hosts" / "site.yaml")
        assert found == Policy(
            modalities=["audio", "image"],
            label_counts=False,
            min_examples=50,
            min_cell=5,
            max_updates=200,
            state=ROOT / "deploy" / "hosts" / "site.state.json",
        )
        assert found.local_dp is None  # what every site installs must not blur its updates

    def test_the_example_with_noise_differs_in_nothing_else(self) -> None:
        plain, private = (read_policy(ROOT / "deploy" / "hosts" / f"{name}.yaml") for name in ("site", "site-private"))
        assert private.local_dp is not None and any("costs accuracy" in line for line in private.in_words())
        assert not private.table_statistics  # noise forbids them anyway
        same = {"local_dp": None, "state": plain.state, "table_statistics": True}
        assert private.model_copy(update=same) == plain
        written = yaml.safe_load((ROOT / "deploy" / "hosts" / "site-private.yaml").read_text())
        assert written.keys() == Policy.model_fields.keys()

    def test_all_mistakes_come_in_one_message(self, tmp_path: Path) -> None:
        path = policy(
            tmp_path, modalities=[], metrics="no", max_update=5, min_examples=0, local_dp={"clip": -1, "nois": 1}
        )
        with pytest.raises(PolicyError) as caught:
            read_policy(path)
        for mistake in (
            "modalities: ", "metrics: ", "unknown option 'max_update'", "did you mean 'max_updates'", "min_examples: ",
            "local_dp.clip: ", "unknown option 'nois'; known: clip, noise; did you mean 'noise'", "local_dp.noise: is",
        ):  # fmt: skip
            assert mistake in str(caught.value)

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (None, "cannot be read"),
            (b"", "a policy is a mapping"),
            (b"- metrics", "a policy is a mapping"),
            (b"\xff\xfe", "not UTF-8"),
            (b"metrics: true\nmetrics: false\n", "'metrics' is used twice"),
            (b"metrics: 2001-02-31", "not YAML"),
            (b"metrics: 2001-01-01", "no option accepts a value of this kind"),
            (b"metrics: &a [*a]", "with aliases expanded"),
            (b"metrics: " + b"[" * 5000, "not YAML"),
            (b"#" * (1 << 20) + b"#", "larger than"),
        ],
    )
    def test_one_that_cannot_be_read_refuses_everything(
        self, content: bytes | None, expected: str, both: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / "site.yaml"
        if content is not None:
            path.write_bytes(content)
        for message in (query_message(experiment()), train_message(experiment(), ["audio", "image"])):
            reply = Site(both, policy=path).answer(message)
            assert text(reply)["error"].startswith("PolicyError: policy site.yaml: 1 mistake")
            assert expected in text(reply)["error"]
            assert "params" not in reply

    def test_a_node_with_a_policy_must_name_its_shard(self, tiny_shards: Path, tmp_path: Path) -> None:
        def answer(**node: str) -> dict[str, Any]:
            context = Context(
                run_id=1, node_id=1, node_config=node, state=RecordDict(), run_config={"shards": str(tiny_shards)}
            )
            return text(query(query_message(experiment()), context).content)

        path = str(policy(tmp_path, modalities=["audio"]))
        assert "must name its own shard" in answer(**{"partition-id": "0", "policy": path, "site": "s"})["error"]
        assert "names no shard" in answer()["error"]
        assert answer(shard=str(tiny_shards / BOTH), policy=path)["modalities"] == ["audio"]
        assert answer(**{"partition-id": "1"})["modalities"] == ["audio", "image"]
        assert answer(shard=str(tiny_shards / BOTH), policy="/nowhere/site.yaml")["error"].startswith("PolicyError")


class TestRequests:
    """What a server sends is refused by name before it does anything."""

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"experiment": 3}, "malformed request: experiment"),
            ({"experiment": "{}"}, "received experiment: "),
            ({"round": 0}, "malformed request: round"),
            ({"round": "1"}, "malformed request: round"),
            ({"round": None}, "round: a training message needs a round"),
        ],
    )
    def test_malformed(self, changes: dict[str, Any], expected: str, both: Path) -> None:
        reply = Site(both).answer(train_message(experiment(), ["audio", "image"], **changes))
        assert expected in text(reply)["error"]

    @pytest.mark.parametrize(
        ("keys", "value", "expected"),
        [
            (("method",), {"name": "../x"}, "unknown method"),
            (("method",), {}, "needs a name"),
            (("method",), {"name": "fedproto"}, "the method needs 'prototype-fusion'"),
            (("model", "architecture"), None, "needs"),
            (("model", "encoders", "audio"), {"name": "spectrogram", "n_mels": -1}, "model.encoders.audio.n_mels"),
            (("model", "encoders", "audio"), {"name": "transformers-text", "model": "../../x"}, "paths are refused"),
            (("model", "encoders", "../x"), {"name": "image"}, "model.encoders"),
            (("completion",), {"image": {"name": "retrieval", "pool": "x"}}, "source: is required"),
        ],
    )
    def test_experiments(self, keys: tuple[str, ...], value: Any, expected: str, both: Path) -> None:
        raw = json.loads(experiment().to_json())
        target = raw
        for key in keys[:-1]:
            target = target[key]
        target[keys[-1]] = value
        message = train_message(experiment(), ["audio", "image"], experiment=json.dumps(raw))
        assert expected in text(Site(both).answer(message))["error"]

    def test_a_site_whose_modalities_changed_wants_to_introduce_itself_again(self, both: Path, tmp_path: Path) -> None:
        message = train_message(experiment(), ["audio", "image"])
        reply = text(Site(both, policy=policy(tmp_path, modalities=["audio"])).answer(message))
        assert reply == {"site": BOTH, "error": "the site's modalities have changed", "introduce": True}

    def test_parameters_that_are_not_the_sites(self, both: Path) -> None:
        chosen = experiment()
        held = ["audio", "image"]
        whole = sent(chosen, held)
        name = next(iter(whole))
        for params, expected in (
            ({**whole, "other": whole[name] + 1}, r"unexpected ['other']"),
            ({key: value for key, value in whole.items() if key != name}, f"missing ['{name}']"),
            ({**whole, name: whole[name].flatten()[:1]}, f"{name} has shape"),
            ({**whole, name: whole[name] * float("nan")}, f"{name} has values that are not finite"),
        ):
            message = Message(
                wire.record({"experiment": chosen.to_json(), "round": 1, "modalities": held}, wire.pack(params)),
                dst_node_id=1, message_type="train",
            )  # fmt: skip
            assert expected in text(Site(both).answer(message))["error"]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("app") / "app"
    make_app_folder(folder, {"experiment": "x"})
    return folder


class TestCode:
    @pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")  # Flower's
    def test_what_we_pack_is_what_is_installed(self, app: Path) -> None:
        fab = build_fab_from_disk(app)
        check_fab(fab)
        with zipfile.ZipFile(io.BytesIO(fab)) as archive:
            assert "client/site.py" in archive.namelist()

    @pytest.mark.parametrize(
        ("name", "change", "expected"),
        [
            ("client/site.py", lambda old: old + b"\n", r"(client/site.py differs)"),
            ("client/__init__.py", lambda old: b"import os", r"(client/__init__.py differs)"),
            ("server/evil.py", lambda old: b"", r"(server/evil.py is not part of the release)"),
            ("torch.py", lambda old: b"", r"(torch.py is not part of the release)"),
            ("common/exchange/wire.py", lambda old: None, r"(common/exchange/wire.py is missing)"),
            (
                "pyproject.toml",
                lambda old: old.replace(b'"client.app:app"', b'"client.evil:app"'),
                "(other entry points)",
            ),
            ("pyproject.toml", lambda old: b"tool = 1", "(other entry points)"),
            ("pyproject.toml", lambda old: b"=", "pyproject.toml cannot be read"),
        ],
    )
    def test_anything_else_is_refused(self, name: str, change: Any, expected: str, app: Path) -> None:
        files = {path.relative_to(app).as_posix(): path.read_bytes() for path in app.rglob("*") if path.is_file()}
        files[name] = change(files.get(name, b""))
        with pytest.raises(PolicyError) as caught:
            check_fab(archive_of({key: value for key, value in files.items() if value is not None}))
        assert expected in str(caught.value)

    def test_what_is_no_archive_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for content in (b"", b"PK", archive_of({"a.py": b"x" * 100})[:-30]):
            with pytest.raises(PolicyError, match="cannot be unpacked"):
                check_fab(content)
        monkeypatch.setattr(clientapp, "LARGEST", 99)
        with pytest.raises(PolicyError, match="larger than"):
            check_fab(archive_of({"a.py": b"x" * 100}))

    def test_every_command_that_flower_may_start_is_ours(self) -> None:
        from flwr.supercore.constant import TASK_TYPE_TO_COMMAND

        names = {"flower-supernode", "flower-superexec", *TASK_TYPE_TO_COMMAND.values()}
        assert {path.name for path in commands_folder().iterdir()} == names
        for name in set(TASK_TYPE_TO_COMMAND.values()) - {"flwr-clientapp"}:
            assert os.system(f"{commands_folder()}/{name} 2>/dev/null") == 1 << 8

    def test_a_command_that_cannot_be_started_is_an_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(ROOT / "deploy" / "hosts" / "bin", tmp_path / "bin")
        monkeypatch.setattr(clientapp, "__file__", str(tmp_path / "clientapp.py"))
        assert commands_folder() == tmp_path / "bin"
        (tmp_path / "bin" / "flwr-model").chmod(0o644)
        with pytest.raises(RunError, match="flwr-model is not executable"):
            commands_folder()


def archive_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def federation(tiny_shards: Path, tmp_path: Path) -> Iterator[tuple[FlowerCommand, Processes]]:
    """A SuperLink and two SuperNodes that run installed code only, the second with a policy."""
    python = Path(executable("flwr")).parent
    env = SETTINGS | {"FLWR_HOME": str(tmp_path / "home")}
    link = Processes(tmp_path / "logs", env | {"PATH": f"{python}:{os.environ['PATH']}"})
    nodes = Processes(tmp_path / "logs", env | {"PATH": f"{commands_folder()}:{python}:{os.environ['PATH']}"})
    try:
        port, fleet, *ports = free_ports(4)
        command = [executable("flower-superlink"), "--insecure", "--disable-runtime-dependency-installation"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--fleet-api-address", f"127.0.0.1:{fleet}"]
        link.start("superlink", command, tmp_path)
        wait_for_port(port, link, 60)
        wait_for_port(fleet, link, 60)
        limited = policy(tmp_path, metrics=False, max_updates=2)
        for index, more in enumerate(("", f" policy='{limited}'")):
            command = [executable("flower-supernode"), "--insecure", "--superlink", f"127.0.0.1:{fleet}"]
            command += ["--host", "127.0.0.1", "--port", str(ports[index])]
            command += ["--node-config", f"shard='{tiny_shards}/client-{index}' site='hospital-{index}'{more}"]
            nodes.start(f"node-{index}", command, tmp_path)
        yield FlowerCommand(tmp_path / "cli", Link(f"127.0.0.1:{port}"), link.env), link
    finally:
        nodes.stop()
        link.stop()


def finish(flower: FlowerCommand, link: Processes, app: Path) -> str:
    """Submit an app and wait for its end; the status."""
    run_id = flower.submit(app, "")
    for _ in range(600):  # each asks in a process that takes a second or more
        status, _ = flower.status(run_id)
        if status.startswith("finished"):
            return status
        link.check()
    raise AssertionError(status)


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_nodes_run_installed_code_only_and_say_what_differs(
    federation: tuple[FlowerCommand, Processes], tmp_path: Path
) -> None:
    flower, link = federation
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    chosen = experiment(federation__round_seconds=300, federation__wait_seconds=60)
    settings = config | {"experiment": chosen.to_json()}
    make_app_folder(tmp_path / "honest", settings | {"run-dir": str(tmp_path / "run-1")})
    assert finish(flower, link, tmp_path / "honest") == "finished:completed"
    lines = [json.loads(line) for line in (tmp_path / "run-1" / "metrics.jsonl").read_text().splitlines()]
    assert set(lines[2]["clients"]["hospital-0"]["losses"]) and lines[2]["clients"]["hospital-1"]["losses"] == {}
    assert SiteState(tmp_path / "site.state.json").read().updates == 2

    make_app_folder(tmp_path / "changed", settings | {"run-dir": str(tmp_path / "run-2")})
    source = tmp_path / "changed" / "client" / "site.py"
    spy = f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    source.write_text(source.read_text().replace("import time\n", "import time\n" + spy, 1))
    assert spy in source.read_text()
    assert finish(flower, link, tmp_path / "changed") == "finished:failed"
    summary = json.loads((tmp_path / "run-2" / "summary.json").read_text())
    reason = "the app differs from the release installed at this site (client/site.py differs)"
    assert summary["reason"].count(reason) == 2
    assert not (tmp_path / "ran").exists()

    make_app_folder(tmp_path / "again", settings | {"run-dir": str(tmp_path / "run-3")})
    assert finish(flower, link, tmp_path / "again") == "finished:failed"
    reason = json.loads((tmp_path / "run-3" / "summary.json").read_text())["reason"]
    assert "hospital-1: PolicyError: 2 updates have left this site, its policy allows 2 (max_updates)" in reason
