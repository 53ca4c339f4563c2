"""Hostile model folders: none of them runs code, none of them makes a process talk to a model hub."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from running import served
from safetensors.torch import load_file, save_file
from tiny_models import save_bert, save_blip2, save_clip, save_coca

from common.errors import ModelError
from common.frozen.model_door import blip2, open_clip_model, pipeline, text_model
from common.frozen.model_lock import LOCK, Fetched, pin
from common.frozen.pretrained import embedded_models, fingerprint, locate, only

Change = Callable[[Path], None]


def changed(file: str, *keys: str, value: Any) -> Change:
    """Sets a value in a JSON file of a folder."""

    def change(folder: Path) -> None:
        path = folder / file
        content = json.loads(path.read_text()) if path.exists() else {}
        inner = content
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
        inner[keys[-1]] = value
        path.write_text(json.dumps(content))

    return change


OPEN_CLIP = "open_clip_config.json"
ATTACKS = [
    pytest.param("coca", changed(OPEN_CLIP, "model_cfg", "text_cfg", "tokenizer_kwargs",
                 value={"trust_remote_code": True}), "trust_remote_code refers to code", id="tokenizer runs code"),
    pytest.param("coca", changed("tokenizer_config.json", "auto_map", value={"AutoTokenizer": ["evil--x.Y", None]}),
                 "auto_map refers to code", id="tokenizer of another"),
    pytest.param("coca", changed(OPEN_CLIP, "model_cfg", "text_cfg", "hf_model_name", value="evil/repo"),
                 "hf_model_name refers to weights", id="text tower of another repository"),
    pytest.param("clip", changed(OPEN_CLIP, "model_cfg", "vision_cfg", "timm_model_name", value="hf-hub:evil/repo"),
                 "not the name of an architecture", id="image tower of another repository"),
    pytest.param("clip", changed(OPEN_CLIP, "model_cfg", "vision_cfg", "timm_model_name", value="local-dir:/srv"),
                 "not the name of an architecture", id="image tower of another folder"),
    pytest.param("clip", changed(OPEN_CLIP, "model_cfg", "vision_cfg", "timm_model_pretrained", value=True),
                 "timm_model_pretrained refers to weights", id="weights of timm"),
    pytest.param("clip", changed(OPEN_CLIP, "model_cfg", "text_cfg", "tokenizer_kwargs", value={"bpe_path": "/x"}),
                 "may not set .*bpe_path", id="a file of the host"),
    pytest.param("clip", changed(OPEN_CLIP, "model_cfg", "vision_cfg", "evil", value=1),
                 "unknown settings", id="unknown setting"),
    pytest.param("clip", changed(OPEN_CLIP, "model_cfg", "vision_cfg", value=["x"]), "not a mapping", id="no mapping"),
    pytest.param("clip", lambda folder: (folder / OPEN_CLIP).write_text("[" * 100_000), "cannot be read", id="deep"),
    pytest.param("bert", changed("config.json", "auto_map", value={"AutoModel": "evil--modeling.Evil"}),
                 "auto_map refers to code", id="model runs code"),
    pytest.param("bert", changed("tokenizer_config.json", "auto_map", value={"AutoTokenizer": ["t.T", None]}),
                 "auto_map refers to code", id="text tokenizer runs code"),
    pytest.param("bert", changed("adapter_config.json", "base_model_name_or_path", value="evil/repo"),
                 "adapter", id="adapter of another model"),
    pytest.param("bert", changed("config.json", "model_type", value="evil"), "not a text encoder", id="unknown type"),
    pytest.param("bert", changed("model.safetensors.index.json", "weight_map", value={"x": "w.bin"}),
                 "not a safetensors file", id="pickled parts"),
    pytest.param("bert", changed("model.safetensors.index.json", "weight_map", value={"x": "../w.safetensors"}),
                 "not a safetensors file", id="parts elsewhere"),
    pytest.param("bert", lambda folder: (folder / "config.json").write_text(" " * (17 << 20)), "larger than 16 MiB",
                 id="settings too large to look into"),
    pytest.param("bert", changed("config.json", "num_attention_heads", value=0), "not a text encoder", id="no heads"),
    pytest.param("diffusion", changed("vae/model_index.json", "_class_name", value="X"), "another pipeline",
                 id="pipeline in a part"),
    pytest.param("diffusion", changed("model_index.json", "vae", value=["os", "system"]),
                 "not allowed in a pipeline", id="pipeline of other libraries"),
    pytest.param("diffusion", changed("model_index.json", "_class_name", value=["evil", "Pipeline"]),
                 "not a pipeline of diffusers", id="pipeline of a file"),
    pytest.param("diffusion", changed("model_index.json", "custom_pipeline", value="evil/repo"),
                 "custom_pipeline refers to code", id="custom pipeline"),
]  # fmt: skip


def save_diffusion(folder: Path) -> Path:
    embedded = embedded_models()
    assert embedded is not None
    shutil.copytree(embedded / "birds-diffusion", folder)
    return folder


KINDS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Any]]] = {
    "coca": (save_coca, lambda folder: open_clip_model(folder, "cpu")),
    "clip": (save_clip, lambda folder: open_clip_model(folder, "cpu")),
    "bert": (save_bert, text_model),
    "diffusion": (save_diffusion, lambda folder: pipeline(folder, "cpu")),
}


@pytest.mark.parametrize(("kind", "change", "expected"), ATTACKS)
def test_a_folder_that_names_code_or_other_weights_is_refused(
    kind: str, change: Change, expected: str, tmp_path: Path
) -> None:
    save, load = KINDS[kind]
    folder = save(tmp_path / "model")
    change(folder)
    with pytest.raises(ModelError, match=expected):
        load(folder)


def test_honest_folders_pass(tmp_path: Path) -> None:
    for kind, (save, load) in KINDS.items():
        load(save(tmp_path / kind))


def test_weights_that_lack_something_are_not_filled_up_with_random_ones(tmp_path: Path) -> None:
    folder = save_blip2(tmp_path / "blip2")
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "qformer" not in k}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"lack \d+ tensors"):
        blip2(folder, "cpu")
    folder = save_bert(tmp_path / "bert")
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if not k.startswith("pooler.")}, folder / "model.safetensors")
    model, tokenizer = text_model(folder)
    found = model(**tokenizer("a blue bird", return_tensors="pt"))
    assert found.pooler_output is None
    save_file({k: v for k, v in weights.items() if "layer.0" not in k}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"lack \d+ tensors of this kind of model, e.g. encoder.layer.0"):
        text_model(folder)


def test_a_pipeline_whose_part_lacks_weights_is_refused(tmp_path: Path) -> None:
    folder = save_diffusion(tmp_path / "model")
    for part in ("unet", "text_encoder"):
        (path,) = (folder / part).glob("*.safetensors")
        weights = load_file(path)
        save_file({name: weights[name] for name in sorted(weights)[::2]}, path)
        with pytest.raises(ModelError, match=r"lack|not a pipeline"):
            pipeline(folder, "cpu")
        save_file(weights, path)
    pipeline(folder, "cpu")


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """A model hub on loopback that has a hostile answer to everything, and what it was asked."""
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = b"import os; os.system('touch ' + os.environ['PROOF'])"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Repo-Commit", "a" * 40)
            self.send_header("ETag", '"x"')
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with served(Hub) as address:
        yield address, asked


BUILD = """
import sys
from common.config.component import build
from common.errors import FedmosaicError
for name, model in [line.split() for line in sys.argv[1:]]:
    try:
        build("encoder", {"name": name, "model": model}).build().prepare("a text")
    except FedmosaicError as error:
        print(error)
    else:
        print("loaded")
"""


def test_an_encoder_that_a_server_names_asks_no_hub_and_runs_nothing(
    tmp_path: Path, hub: tuple[str, list[str]]
) -> None:
    address, asked = hub
    models = tmp_path / "models"
    save_coca(models / "evil")
    for attack in ATTACKS[:3]:
        attack.values[1](models / "evil")  # type: ignore[operator]
    env = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hub"), "PROOF": str(tmp_path / "proof")}
    env |= {"FEDMOSAIC_MODELS": str(models)}
    env.pop("HF_HUB_OFFLINE", None)
    told = ["open-clip-text evil", "open-clip-text owner/other", "transformers-text owner/other"]
    done = subprocess.run([sys.executable, "-c", BUILD, *told], env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    evil, *elsewhere = done.stdout.splitlines()
    assert "refers to" in evil
    assert len(elsewhere) == 2 and all("is not on this machine" in line for line in elsewhere)
    assert not asked and not (tmp_path / "proof").exists()


def test_a_policy_names_the_models_that_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDMOSAIC_MODELS", str(tmp_path))
    (tmp_path / "mine").mkdir()
    with only(["mine"]):
        assert locate("mine") == tmp_path / "mine"
        with pytest.raises(ModelError, match="not in the list `models` of this site's policy"):
            locate("birds-coca")
    assert locate("birds-coca").is_dir()


def test_a_fetched_model_whose_files_change_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDMOSAIC_MODELS", str(tmp_path))
    folder = save_bert(tmp_path / "owner" / "bert")
    pin(tmp_path, "owner/bert", Fetched(revision="a" * 40, fingerprint=fingerprint(folder)))
    assert locate("owner/bert") == folder
    changed("config.json", "hidden_size", value=7)(folder)
    with pytest.raises(ModelError, match="have changed since they were fetched"):
        locate("owner/bert")
    (tmp_path / LOCK).write_text("[]")
    with pytest.raises(ModelError, match=f"{LOCK} cannot be read"):
        locate("owner/bert")
