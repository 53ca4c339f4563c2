"""Plugins: found by entry points, run where they are allowed, refused by name where they are not."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import RAW, ROOT, experiment
from PIL import Image
from plugin_packages import forget, install
from safetensors.torch import load_file
from test_cli import call
from test_faults import Lab, assert_same
from test_policy import query_message, text

from client.policy import Policy, read_policy
from client.resident.connection import code
from client.site import Site
from common.config import plugins
from common.config.component import find, names, own_names
from common.config.plugins import Plugin, normalised
from common.config.reading import for_clients, from_json, plugins_at_sites
from common.errors import ConfigError, PolicyError
from common.exchange import wire
from deploy.commands import doctor
from deploy.engines.in_process import InProcessGrid, claim_identity, own_site
from deploy.engines.launch import executable
from deploy.engines.processes import Processes, free_ports
from deploy.plugin.template import EXAMPLES
from fedmosaic import load_model, run
from server.record.checkpoint import Checkpoint, check_same

NAME = "pytest-focal"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the path in which plugins are installed."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    forget()
    yield folder
    forget()
    for name in set(sys.modules) - before:
        if name.split(".")[0].startswith("pytest_"):
            del sys.modules[name]


@pytest.fixture
def focal(site: Path) -> Plugin:
    install(site, NAME)
    return installed_plugin()


def installed_plugin() -> Plugin:
    """The one installed plugin."""
    (pin,) = plugins.pins()
    found = plugins.plugin(pin)
    assert found is not None
    return found


def answer(site: Site, **changes: Any) -> dict[str, Any]:
    """What a site says to an introduction."""
    claim_identity()
    return text(site.answer(query_message(experiment(**changes))))


class TestFinding:
    def test_a_member_is_found_by_its_entry_point(self, focal: Plugin) -> None:
        assert str(focal) == f"{NAME}==0.1.0"
        assert set(names("method")) == {*own_names("method"), "focal"}
        assert find("method", "focal").__module__ == "pytest_focal.focal"
        assert find("method", "fedcmi").__module__ == "client.methods.fedcmi"

    @pytest.mark.parametrize("family", EXAMPLES)
    def test_every_family_takes_members(self, family: str, site: Path) -> None:
        install(site, "pytest-any", family)
        for of, module in EXAMPLES[family].members.items():
            assert find(of, module.replace("_", "-")).__module__ == f"pytest_any.{module}"

    def test_an_experiment_names_the_plugins_that_its_sites_need(self, focal: Plugin, site: Path) -> None:
        install(site, "pytest-uniform", "strategy")
        install(site, "pytest-spectrum", "encoder")
        forget()
        used = experiment(method="focal", strategy="uniform", model__encoders__audio={"name": "spectrum"})
        assert [plugin.name for plugin in plugins_at_sites(used.to_json())] == [NAME, "pytest-spectrum"]
        assert plugins_at_sites(experiment().to_json()) == []

    def test_no_plugin_replaces_a_member_of_ours(self, site: Path) -> None:
        package = install(site, NAME)
        (info,) = site.glob("*.dist-info")
        (info / "entry_points.txt").write_text("[fedmosaic.methods]\nfedcmi = pytest_focal.focal\n")
        assert find("method", "fedcmi").__module__ == "client.methods.fedcmi"
        (info / "entry_points.txt").write_text("[fedmosaic.families]\nmethod = pytest_focal\n")
        forget()
        plugins.homes.cache_clear()
        assert plugins.homes()["method"] == "client.methods"
        assert package.is_dir()

    def test_two_packages_with_one_name_are_refused_with_both_names(self, focal: Plugin, site: Path) -> None:
        install(site, "pytest-other")
        forget()
        with pytest.raises(ConfigError, match=r"pytest-focal==0\.1\.0 and with pytest-other==0\.1\.0"):
            find("method", "focal")

    @pytest.mark.parametrize(
        ("entry", "reason"),
        [
            ("pytest_focal.absent", "the package pytest-focal==0.1.0 cannot be loaded: ModuleNotFoundError"),
            ("pytest_focal.focal:Absent", "cannot be loaded: AttributeError"),
            ("pytest_focal.focal:Field", "its entry point names no subclass of Method"),
            ("pytest_focal", "must define exactly one Component, it defines 0"),
        ],
    )
    def test_a_broken_entry_point_is_a_mistake_of_the_config(
        self, entry: str, reason: str, focal: Plugin, site: Path
    ) -> None:
        (info,) = site.glob("*.dist-info")
        (info / "entry_points.txt").write_text(f"[fedmosaic.methods]\nfocal = {entry}\n")
        forget()
        with pytest.raises(ConfigError) as caught:
            experiment(method="focal")
        assert reason in str(caught.value)
        assert "method: " in str(caught.value)

    def test_the_digest_is_that_of_the_content(self, focal: Plugin, site: Path) -> None:
        package = site / "pytest_focal"
        (package / "__pycache__").mkdir(exist_ok=True)
        (package / "__pycache__" / "x.pyc").write_bytes(b"compiled")
        forget()
        assert installed_plugin() == focal
        (package / "table.csv").write_text("1,2\n")
        forget()
        changed = installed_plugin()
        assert (changed.name, changed.version) == (focal.name, focal.version)
        assert changed.digest != focal.digest

    def test_nothing_is_loaded_unless_it_is_allowed(self, focal: Plugin) -> None:
        sent = experiment(method="focal").to_json()
        sys.modules.pop("pytest_focal.focal", None)
        with plugins.only(()), pytest.raises(ConfigError, match=r"comes with the package pytest-focal==0\.1\.0"):
            from_json(sent)
        assert "focal" not in own_names("method")
        with plugins.only(()):
            assert "focal" not in names("method")
        assert "pytest_focal.focal" not in sys.modules
        with plugins.only([focal]):
            assert from_json(sent).method["name"] == "focal"


def entry(site: Path, value: str, group: str = "fedmosaic.methods") -> None:
    """Let the entry point of the one installed plugin name something else."""
    (info,) = site.glob("*.dist-info")
    (info / "entry_points.txt").write_text(f"[{group}]\nfocal = {value}\n")
    forget()


class TestContent:
    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ("os:path", "its entry points name the module os, which is not its own"),
            ("sys:path", "name the module sys"),
            ("__main__:x", "name the module __main__"),
            ("client.site:Site", "name the module client"),
            ("nowhere.focal", "there is no module nowhere"),
        ],
    )
    def test_a_package_without_a_content_of_its_own_is_refused_and_harms_nobody(
        self, value: str, reason: str, focal: Plugin, site: Path, tiny_shards: Path
    ) -> None:
        entry(site, value)
        with pytest.raises(ConfigError, match=rf"of the package pytest-focal==0\.1\.0 is unknown: .*{reason}"):
            find("method", "focal")
        with pytest.raises(PolicyError, match=reason):
            Policy(plugins=[str(focal)]).admit([focal])
        assert plugins.stamps()
        assert code()
        assert "error" not in answer(own_site(tiny_shards / "client-1"))
        assert "error" not in answer(Site(tiny_shards / "client-1"))

    @pytest.mark.parametrize(
        "damage",
        [
            lambda info: (info / "METADATA").unlink(),
            lambda info: (info / "METADATA").write_text("Name: pytest-focal\n"),
            lambda info: (info / "METADATA").write_text("Name: pytest-focal\nVersion: 1.0 beta\n"),
            lambda info: (info / "METADATA").write_bytes(b"\xff\xfe"),
            lambda info: (info / "entry_points.txt").write_text("no section"),
        ],
    )
    def test_a_damaged_installation_harms_nobody(
        self, damage: Any, focal: Plugin, site: Path, tiny_shards: Path, tmp_path: Path
    ) -> None:
        (info,) = site.glob("*.dist-info")
        damage(info)
        forget()
        assert "error" not in answer(own_site(tiny_shards / "client-1"))
        assert code()
        assert str(focal) not in plugins.pins()
        policy = tmp_path / "policy.yaml"
        policy.write_text(yaml.safe_dump({"plugins": [str(focal)]}))
        result = doctor.plugins(policy)
        assert result.state is doctor.State.WARNING
        assert "pytest-focal" in result.found

    def test_what_a_link_leads_to_is_part_of_the_content(self, focal: Plugin, site: Path, tmp_path: Path) -> None:
        (tmp_path / "aside").mkdir()
        (tmp_path / "aside" / "more.py").write_text("X = 1\n")
        (site / "pytest_focal" / "linked").symlink_to(tmp_path / "aside")
        (site / "pytest_focal" / "upwards").symlink_to(site / "pytest_focal")
        forget()
        linked = installed_plugin().digest
        (tmp_path / "aside" / "more.py").write_text("X = 2\n")
        forget()
        assert len({focal.digest, linked, installed_plugin().digest}) == 3

    def test_only_compiled_files_are_left_out(self, focal: Plugin, site: Path) -> None:
        digests = {focal.digest}
        for name in ("__pycache__/core.py", "core.pyc", "table.bin"):
            path = site / "pytest_focal" / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"content")
            forget()
            digests.add(installed_plugin().digest)
        assert len(digests) == 4

    def test_a_folder_whose_parent_is_called_like_a_cache_is_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        package = install(tmp_path / "__pycache__" / "site", NAME)
        monkeypatch.syspath_prepend(tmp_path / "__pycache__" / "site")
        forget()
        before = installed_plugin().digest
        (package / "focal.py").write_text("")
        forget()
        assert installed_plugin().digest != before

    def test_a_namespace_package_is_refused(self, focal: Plugin, site: Path) -> None:
        (site / "pytest_focal" / "__init__.py").unlink()
        sys.modules.pop("pytest_focal", None)
        forget()
        with pytest.raises(ConfigError, match="pytest_focal is a namespace package"):
            plugins.plugin(str(focal))

    def test_the_first_installation_on_the_path_counts_even_without_entry_points(
        self, focal: Plugin, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        newer = tmp_path / "first" / "pytest_focal-0.2.0.dist-info"
        newer.mkdir(parents=True)
        (newer / "METADATA").write_text("Metadata-Version: 2.1\nName: pytest-focal\nVersion: 0.2.0\n")
        monkeypatch.syspath_prepend(tmp_path / "first")
        forget()
        assert plugins.pins() == []
        assert site.is_dir()

    def test_another_package_called_fedmosaic_changes_no_family(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        info = tmp_path / "fedmosaic-9.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fedmosaic\nVersion: 9\n")
        (info / "entry_points.txt").write_text("[fedmosaic.families]\nmethod = evil\n")
        try:
            monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
            plugins.homes.cache_clear()
            assert plugins.homes()["method"] == "client.methods"
            monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
            plugins.homes.cache_clear()
            with pytest.raises(ConfigError, match="another package is installed as fedmosaic: evil"):
                plugins.homes()
        finally:
            monkeypatch.undo()
            plugins.homes.cache_clear()
            assert plugins.homes()["method"] == "client.methods"

    def test_a_plugin_that_exits_when_it_is_loaded_is_named(self, focal: Plugin, site: Path) -> None:
        (site / "pytest_focal" / "focal.py").write_text("raise SystemExit(0)\n")
        sys.modules.pop("pytest_focal.focal", None)
        forget()
        with pytest.raises(ConfigError, match=r"the package pytest-focal==0\.1\.0 cannot be loaded: SystemExit"):
            find("method", "focal")

    def test_a_member_of_another_family_is_refused(self, focal: Plugin, site: Path) -> None:
        entry(site, "pytest_focal.focal", "fedmosaic.encoders")
        with pytest.raises(ConfigError, match="names no subclass of EncoderOptions"):
            find("encoder", "focal")

    def test_an_entry_point_may_have_extras(self, focal: Plugin, site: Path) -> None:
        entry(site, "pytest_focal.focal:Focal [fast]")
        assert find("method", "focal").__name__ == "Focal"

    def test_a_plugin_that_is_not_allowed_does_not_block_one_that_is(self, focal: Plugin, site: Path) -> None:
        install(site, "pytest-other")
        forget()
        with plugins.only([focal]):
            assert find("method", "focal").__module__ == "pytest_focal.focal"


class TestSites:
    def policy(self, folder: Path, named: list[str]) -> Path:
        path = folder / "policy.yaml"
        path.write_text(yaml.safe_dump({"plugins": named}))
        return path

    def test_a_site_whose_policy_names_the_plugin_takes_part(
        self, focal: Plugin, tiny_shards: Path, tmp_path: Path
    ) -> None:
        policy = self.policy(tmp_path, ["PyTest_Focal==0.1.0"])
        said = answer(Site(tiny_shards / "client-1", policy=policy), method="focal")
        assert "error" not in said
        assert said["num_examples"] > 0

    @pytest.mark.parametrize("named", [None, [], ["another==0.1.0"], [f"{NAME}==0.1.1"]])
    def test_a_site_that_does_not_name_it_refuses_it_by_name_and_loads_nothing(
        self, named: list[str] | None, focal: Plugin, tiny_shards: Path, tmp_path: Path
    ) -> None:
        policy = None if named is None else self.policy(tmp_path, named)
        message = query_message(experiment(method="focal"))
        sys.modules.pop("pytest_focal.focal", None)
        plugins._loaded.cache_clear()
        claim_identity()
        said = text(Site(tiny_shards / "client-1", policy=policy).answer(message))
        assert said["error"] == (
            "PolicyError: this site's policy does not name the package pytest-focal==0.1.0 (plugins)"
        )
        assert "pytest_focal.focal" not in sys.modules

    @pytest.mark.parametrize(
        ("asked", "reason"),
        [
            (
                {"version": "0.2.0"},
                "pytest-focal==0.2.0 is not installed at this site, but pytest-focal==0.1.0 is",
            ),
            (
                {"digest": "0" * 64},
                "pytest-focal==0.1.0 has another content at this site than at the server",
            ),
            ({"name": "absent"}, "the package absent==0.1.0 is not installed at this site"),
        ],
    )
    def test_another_version_or_content_is_refused(self, asked: dict[str, str], reason: str, focal: Plugin) -> None:
        given = Plugin(**{"name": NAME, "version": "0.1.0", "digest": focal.digest, **asked})
        policy = Policy(plugins=[f"{NAME}==0.1.0", f"{NAME}==0.2.0", "absent==0.1.0"])
        with pytest.raises(PolicyError) as caught:
            policy.admit([given])
        assert reason in str(caught.value)

    def test_a_server_that_does_not_list_a_plugin_does_not_get_it_run(
        self, focal: Plugin, tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        message = query_message(experiment(method="focal"))
        body = wire.read_body(message)
        message.content["body"]["json"] = json.dumps({**body, "plugins": []})
        sys.modules.pop("pytest_focal.focal", None)
        plugins._loaded.cache_clear()
        claim_identity()
        policy = self.policy(tmp_path, [f"{NAME}==0.1.0"])
        said = text(Site(tiny_shards / "client-1", policy=policy).answer(message))
        assert (
            "method 'focal' comes with the package pytest-focal==0.1.0, which is not allowed to run here"
            in said["error"]
        )
        assert "pytest_focal.focal" not in sys.modules

    def test_without_a_policys_file_the_environment_names_them(
        self, focal: Plugin, tiny_shards: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site = Site(tiny_shards / "client-1")
        assert "error" in answer(site, method="focal")
        monkeypatch.setenv(plugins.VARIABLE, str(focal))
        assert "error" not in answer(site, method="focal")
        assert "error" not in answer(own_site(tiny_shards / "client-1"), method="focal")

    @pytest.mark.parametrize("named", ["focal", "focal=1", "focal==", "a b==1", "focal==1; x"])
    def test_a_policy_names_versions(self, named: str, tmp_path: Path) -> None:
        with pytest.raises(PolicyError, match="plugins"):
            read_policy(self.policy(tmp_path, [named]))

    def test_the_policy_is_told_in_words(self) -> None:
        said = Policy(plugins=[f"{NAME}==0.1.0"]).in_words()
        assert any(f"{NAME}==0.1.0" in line for line in said)
        assert normalised("A_b.C==1.0") == "a-b-c==1.0"


def test_a_run_in_python_uses_a_plugin_and_so_does_its_model(
    focal: Plugin, site: Path, tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    install(site, "pytest-spectrum", "encoder")
    forget()
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(RAW))
    changes = {"method": "focal", "federation.rounds": 1, "model.encoders.audio": {"name": "spectrum", "bands": 8}}
    found = run(config, changes=changes, shards=tiny_shards)
    assert found.summary["status"] == "completed"
    assert found.summary["plugins"] == ["pytest-focal==0.1.0", "pytest-spectrum==0.1.0"]
    model = load_model(found)
    (prediction,) = model.predict([{"image": Image.new("L", (8, 8))}])
    assert sum(prediction.probabilities.values()) == pytest.approx(1.0)
    assert type(model).__name__ == "Predictor"


def test_a_run_in_python_leaves_the_process_as_it_was(tiny_shards: Path, tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(RAW))
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    torch.set_num_threads(2)
    torch.set_deterministic_debug_mode("default")
    mask = os.umask(0o027)
    try:
        run(config, changes={"federation.rounds": 1}, shards=tiny_shards, run_dir=tmp_path / "run")
        found = os.umask(0o027)
        assert (found, torch.get_num_threads(), torch.get_deterministic_debug_mode()) == (0o027, 2, 0)
        assert handler in root.handlers
        logging.getLogger("mine").warning("a line of the caller")
        assert "a line of the caller" not in (tmp_path / "run" / "logs" / "run.log").read_text()
    finally:
        os.umask(mask)
        root.removeHandler(handler)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"engine": "turbo"}, "engine: 'turbo' is not one of inprocess, simulation, processes"),
        ({"engine": "superlink"}, "engine: 'superlink' is not one of"),
        ({"experiment": "-x.yaml"}, "-x.yaml"),
        ({"changes": {1: 2}}, "1 is not the name of an option"),
        ({"run_dir": "/proc/xx"}, "/proc/xx cannot be made"),
        ({"changes": {"method": "fedcmy"}}, "unknown method 'fedcmy'"),
    ],
)
def test_wrong_arguments_of_a_run_in_python_are_mistakes_of_a_config(
    changed: dict[str, Any], reason: str, tiny_shards: Path, tmp_path: Path
) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(RAW))
    with pytest.raises(ConfigError) as caught:
        run(**{"experiment": config, "shards": tiny_shards, "run_dir": tmp_path / "run", **changed})
    assert reason in str(caught.value).replace("- ", "")


def test_a_run_is_not_resumed_with_another_content_of_a_plugin(focal: Plugin, site: Path) -> None:
    used = experiment(method="focal")
    began = Checkpoint(1, {}, {}, {"experiment": json.loads(used.to_json()), "plugins": {str(focal): focal.digest}})
    check_same(used, began)
    (site / "pytest_focal" / "more.txt").write_text("more")
    forget()
    with pytest.raises(ConfigError, match=r"plugin pytest-focal==0\.1\.0: its content differs"):
        check_same(used, began)


@pytest.mark.slow
def test_the_tests_of_every_template_pass(tmp_path: Path) -> None:
    for number, family in enumerate(EXAMPLES):
        install(tmp_path / "site", f"pytest-{number}", family)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, tmp_path.glob("*-source"))]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr


class TestInit:
    def test_it_writes_the_folder_and_says_what_to_do(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert call("init", "--plugin", "my-loss") == 0
        said = capsys.readouterr().out
        assert "pip install --editable my-loss'[test]'" in said
        assert "pytest my-loss/tests" in said
        written = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
        assert written == [
            "my-loss/README.md",
            "my-loss/my_loss/__init__.py",
            "my-loss/my_loss/focal.py",
            "my-loss/pyproject.toml",
            "my-loss/tests/test_focal.py",
        ]
        assert "$" not in (tmp_path / "my-loss" / "README.md").read_text()
        assert call("init", "--plugin", "my-loss") == 2
        assert "exists and is not empty" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            ([], "needs DIR, a new folder, or --plugin NAME"),
            (["--plugin", "My_Loss"], "use at most 60 lower-case letters, digits and single hyphens"),
            (["--plugin", "json"], "a module json is installed already"),
            (["--plugin", "class"], "a package cannot have this name"),
            (["--plugin", "tests"], "a package cannot have this name"),
            (["--plugin", "a" * 61], "use at most 60"),
            (["x" * 300], "cannot be written: File name too long"),
            (["folder", "--family", "method"], "--family needs --plugin NAME"),
            (["--plugin", "a-b", "--shards", "."], "--plugin and --shards cannot be used together"),
        ],
    )
    def test_mistakes_are_named(
        self, arguments: list[str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        monkeypatch.chdir(tmp_path)
        assert call("init", *arguments) == 2
        assert reason in capsys.readouterr().err
        assert not list(tmp_path.iterdir())


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an installed plugin, for processes that are started."""
    install(tmp_path / "installed", NAME)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "installed"), str(ROOT)]))
    return tmp_path / "installed"


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(1500)
def test_every_engine_gives_the_same_bits_with_a_plugin(installed: Path, tmp_path: Path, tiny_shards: Path) -> None:
    config = tmp_path / "focal.yaml"
    config.write_text(yaml.safe_dump({**RAW, "method": "focal"}))
    models = {}
    for engine in ("inprocess", "simulation", "processes"):
        told = ["run", config, "--engine", engine, "--shards", tiny_shards, "--run-dir", tmp_path / engine]
        command = [executable("fedmosaic"), *map(str, told)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=450)
        assert done.returncode == 0, done.stdout + done.stderr
        models[engine] = load_file(tmp_path / engine / "model.safetensors")
    for engine in ("simulation", "processes"):
        assert_same(models["inprocess"], models[engine])


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(1500)
def test_over_supernodes_the_sites_that_name_the_plugin_run_it_and_the_other_refuses_it_by_name(
    installed: Path, tmp_path: Path, tiny_shards: Path
) -> None:
    processes = Processes(tmp_path / "logs", {"PYTHONPATH": os.environ["PYTHONPATH"]})
    lab = Lab(tmp_path, tiny_shards, processes, free_ports(2))
    lab.shard_of = {"a": tiny_shards / "client-0", "b": tiny_shards / "client-1", "c": tiny_shards / "client-1"}
    try:
        assert lab.fedmosaic("certs", "--out", "certs", "--server", "127.0.0.1", "--site", *"abc").returncode == 0
        lab.start_superlink()
        assert lab.fedmosaic("register", *(f"certs/{site}.pub" for site in "abc"), *lab.trust).returncode == 0
        for site in "abc":
            named = [f"{NAME}==0.1.0"] if site != "c" else []
            (tmp_path / f"{site}.yaml").write_text(yaml.safe_dump({"plugins": named}))
            lab.start_node(site, policy=tmp_path / f"{site}.yaml")
        done = lab.run("focal", "--set", "method=focal", rounds=2, min_replies=2)
        assert done.returncode == 0, done.stdout + done.stderr
        summary = lab.summary("focal")
        assert summary["status"] == "completed"
        assert set(lab.lines("focal")[-1]["clients"]) == {"a", "b"}
        refused = "this site's policy does not name the package pytest-focal==0.1.0 (plugins)"
        assert refused in json.dumps(summary) + done.stdout + done.stderr
    finally:
        processes.stop()


def test_a_federation_in_one_process_sends_the_plugins_with_every_message(
    focal: Plugin, tiny_shards: Path, tmp_path: Path
) -> None:
    told = for_clients(experiment(method="focal"))
    assert told["plugins"] == [{"name": NAME, "version": "0.1.0", "digest": focal.digest}]
    assert InProcessGrid([own_site(tiny_shards / "client-0")]).get_node_ids()
