"""Whatever a file or a message holds is accepted or refused with an error of our own, and nothing else.

Inputs are valid ones that were damaged, so that they get past the first check. 14,500 of them; as many times more as
$FEDMOSAIC_FUZZ says: `make fuzz` tries 58,000.
"""

import copy
import io
import json
import os
import re
import resource
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from conftest import RAW, ROOT, experiment
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import RLELossless
from safetensors.torch import save
from test_medical_images import dicom, volume

from client.policy import read_policy
from client.request import read_body, read_request
from client.site_state import SiteState
from client.tables import description
from common.config.reading import from_json, override, parse
from common.config.task import SingleLabel
from common.config.yaml_file import parse_yaml
from common.data.completed import LINES, find_completed, folder_of
from common.data.shard import Shard
from common.errors import FedmosaicError, PolicyError
from common.evaluation.evaluate import merge
from common.evaluation.figures import figures, standard
from common.exchange import wire
from common.frozen.model_door import check, check_open_clip, check_pipeline, open_clip_config
from common.frozen.model_lock import read_lock
from common.media.values import encode_array, read
from common.tasks.find import task_of
from common.tasks.targets import targets
from common.types import Site
from deploy.engines.in_process import claim_identity
from deploy.hosts.clientapp import check_fab
from deploy.shards.own_files.dicom import read_dicom
from deploy.shards.own_files.kinds import kind
from deploy.shards.own_files.nifti import read_nifti
from deploy.shards.own_files.slices import Choice
from server.clients.replies import read_introduction, read_training_reply

CONFIGS = [path.read_bytes() for path in sorted((ROOT / "configs").glob("*.yaml"))]
POLICY = (ROOT / "deploy" / "hosts" / "site.yaml").read_bytes()
SEEDS = st.integers(0, 2**32 - 1)
TIMES = int(os.environ.get("FEDMOSAIC_FUZZ", "1"))
MOST_MEMORY = 2_500_000
"""Kilobytes that the process may ever take, whatever it is given; torch and its kin take a third of it."""


def inputs(count: int) -> Callable[[Any], Any]:
    """Run a test on `count` seeds, always the same."""
    quick = settings(max_examples=count * TIMES, derandomize=True, deadline=None, database=None,
                     suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
    return lambda test: quick(given(SEEDS)(test))


def test_there_are_at_least_ten_thousand_inputs() -> None:
    counts = [int(number) for number in re.findall(r"^@inputs\((\d+)\)", Path(__file__).read_text(), re.MULTILINE)]
    assert sum(counts) == 14_500 >= 10_000
    assert 4 * sum(counts) > 50_000 and "14,500" in str(__doc__) and "58,000" in str(__doc__)


@pytest.fixture(scope="module", autouse=True)
def _memory() -> Iterator[None]:
    """No input makes the process take what it should not."""
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < MOST_MEMORY


# fmt: off
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2, 2**31, 2**63, 2**64, -(2**70), 10**400, 0.5, -0.0, 1e-320, 1e308,
    float("nan"), float("inf"), -float("inf"), "", " ", "x", "audio", "fedavg", "../..", "/etc/passwd", "a\0b",
    "\ud800", "\U0001f600", "x" * 5000, "1", "1e999", "name", [], {}, [[]], [1, "a", None], {"name": "fedavg"},
    {"name": []}, {"name": None}, {"": ""}, {"\ud800": 1}, {"a" * 3000: 1}, ["x"] * 300,
]
"""What may stand where something else is expected."""
PIECES = [
    b"\0", b"\xff", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\xc2\x85", b"\xe2\x80\xa8", b"\n", b"\r", b"\t", b" ",
    b"  ", b":", b": ", b"- ", b"{", b"}", b"[", b"]", b"[" * 3000, b'{"a":' * 3000, b'"', b"'", b"\\", b"\\ud800",
    b"\\u0000", b"#", b"&a ", b"*a", b"<<: *a", b"!!python/object:os.system ", b"!!set {a, b}", b"!!binary aGk=",
    b"!!timestamp 2001-02-31", b"2001-01-01", b"?", b"|", b">", b"%YAML 9.9\n---\n", b"---\n", b"...\n", b"null",
    b"true", b"NaN", b".nan", b"-.inf", b"1e999", b"9" * 5000, b"9" * 30, b"-1", b"0x", b"0o9", b"1_0", b"59:59:59",
    b"../", b"/", b"~", b",", b"a" * 3000,
]
"""What may come in between, by chance or by malice."""
# fmt: on
FAULTS = ("piece", "insert", "noise", "flip", "cut", "end", "copy", "drop", "number")


def damaged(data: bytes, random: Random) -> bytes:
    """Bytes with one to four faults."""
    for _ in range(random.choice((1, 1, 2, 4))):
        data = faulty(data, random, random.choice(FAULTS))
    return data


def faulty(data: bytes, random: Random, fault: str) -> bytes:
    """Bytes with one more fault."""
    at, length = random.randint(0, len(data)), random.choice((0, 1, 1, 2, 8, 64))
    head, tail, piece = data[:at], data[at + length :], random.choice(PIECES)
    if fault == "copy" or fault == "drop":
        lines = data.split(b"\n")
        line = random.randrange(len(lines))
        return b"\n".join(lines[:line] + [random.choice(lines)] * 2 * (fault == "copy") + lines[line + 1 :])
    if fault == "number":
        return re.sub(rb"(?<=[ :])[\d.]+", lambda _: piece, data, count=random.randint(1, 3))
    if fault == "flip":
        return head + bytes(byte ^ 1 << random.randrange(8) for byte in data[at : at + 1]) + data[at + 1 :]
    return {
        "piece": head + piece + tail,
        "insert": head + piece + data[at:],
        "noise": head + random.randbytes(length) + tail,
        "cut": head + tail,
        "end": head,
    }[fault]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container and key or index in nested JSON."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


def changed(value: Any, random: Random) -> Any:
    """JSON with one to four changes of its structure."""
    value = copy.deepcopy(value)
    for _ in range(random.choice((1, 1, 2, 4))):
        if not (found := list(places(value))):
            return random.choice(VALUES)
        box, key = random.choice(found)
        _, source = random.choice(found)
        new = copy.deepcopy(random.choice(VALUES))
        how = random.randrange(7)
        if how <= 2:
            box[key] = new
        elif how == 3:
            del box[key]
        elif how == 4:
            box[key] = [box[key]] if random.random() < 0.5 else {str(source): box[key]}
        elif isinstance(box, dict) and how == 5:
            box[random.choice(("x", "name", "", str(source), "a\0", "\ud800", "x" * 3000))] = box.pop(key)
        elif isinstance(box, dict):
            box[random.choice(("x", "name", str(source)))] = new
        else:
            box.insert(key, new)
    return value


@pytest.fixture(scope="module", autouse=True)
def _in_process() -> None:
    claim_identity()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder in memory where there is one: it is written to thousands of times."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


@inputs(800)
def test_texts_of_configs(seed: int) -> None:
    random = Random(seed)
    with suppress(FedmosaicError):
        parse(parse_yaml(damaged(random.choice(CONFIGS), random), "fuzz", "an experiment is a mapping"), "fuzz")


WHOLE = [yaml.safe_load(text) for text in CONFIGS]
RESOLVED = [json.loads(parse(raw, "whole").to_json()) for raw in WHOLE] + [json.loads(experiment().to_json())]


@inputs(2000)
def test_configs(seed: int) -> None:
    random = Random(seed)
    raw = changed(random.choice(WHOLE), random)
    with suppress(FedmosaicError):
        override(raw, random.choice(("train.lr", "model.encoders.audio.name", "name.x", "a.b.c")).split("."), 1, "fuzz")
        chosen = parse(raw, "fuzz")
        assert from_json(chosen.to_json()) == chosen
        assert yaml.safe_load(chosen.to_yaml()) == json.loads(chosen.to_json())


@inputs(1200)
def test_received_experiments(seed: int) -> None:
    random = Random(seed)
    text = json.dumps(changed(random.choice(RESOLVED), random))
    if random.random() < 0.2:
        text = damaged(text.encode(), random).decode("utf-8", "replace")
    with suppress(FedmosaicError):
        from_json(text)


@inputs(600)
def test_requests(seed: int) -> None:
    random = Random(seed)
    body = changed({"experiment": experiment().to_json(), "round": 1}, random)
    message = Message(
        RecordDict({"body": ConfigRecord({"json": json.dumps(body)})}), dst_node_id=1, message_type="train"
    )
    with suppress(FedmosaicError):
        read_request(read_body(message), training=random.random() < 0.5)


INFO = {"site": "s", "classes": ["a", "b"], "modalities": ["text", "image"], "kinds": {"a": "x"}, "made": {"n": 1}}
RECORDS: list[Any] = [
    {"id": "1", "label": "a", "text": "t", "image_file_name": "image/1.png"},
    {"id": "2", "label": "b", "image_file_name": "link/1.png"},
    {"id": "3", "label": "b", "text": "ü"},
]
MADE: list[Any] = [{"id": "3", "modality": "image", "file_name": "x.png", "score": 0.5}, {"id": "2", "value": "t"}]
COMPLETER = {"name": "retrieval", "source": "text", "pool": "digits-mini"}


def lines(records: list[Any], random: Random) -> bytes:
    """Lines of JSON, damaged in structure or in bytes."""
    given = changed(records, random) if random.random() < 0.6 else records
    given = given if isinstance(given, list) else [given]
    text = "".join(json.dumps(line, ensure_ascii=random.random() < 0.5) + "\n" for line in given)
    data = text.encode("utf-8", "surrogatepass")
    return data if given is not records else damaged(data, random)


def open_shard(folder: Path) -> Shard:
    shard = Shard.open(folder)
    targets(shard.info.task, [record.label for record in shard.records], shard.info.classes)
    for record in shard.records:
        for path in record.files.values():
            assert path.resolve().is_relative_to(folder.resolve())
    return shard


@pytest.fixture(scope="module")
def shard(folder: Path) -> Path:
    path = folder / "shard"
    path.mkdir()
    (path / "link").symlink_to("/etc")
    (path / "circle").symlink_to("circle")
    return path


@inputs(1400)
def test_info_of_shards(shard: Path, seed: int) -> None:
    random = Random(seed)
    text = json.dumps(changed(INFO, random) if random.random() < 0.6 else INFO).encode()
    (shard / "shard.json").write_bytes(damaged(text, random) if random.random() < 0.6 else text)
    (shard / "metadata.jsonl").write_bytes(lines([RECORDS[0]], random))
    with suppress(FedmosaicError):
        open_shard(shard)


@inputs(1400)
def test_metadata_of_shards(shard: Path, seed: int) -> None:
    random = Random(seed)
    records = [RECORDS[0], RECORDS[2], {"id": "4", "label": "a", "image_file_name": random.choice(("circle", "."))}]
    (shard / "shard.json").write_text(json.dumps(INFO))
    (shard / "metadata.jsonl").write_bytes(lines(records, random))
    with suppress(FedmosaicError):
        open_shard(shard)


TABLES = {"vitals": {"age": {"type": "number", "unit": "years", "range": [0, 120]},
                     "sex": {"type": "category", "values": ["f", "m"]}}}  # fmt: skip
ROWS = [
    {"id": "1", "label": "a", "vitals": {"age": 63, "sex": None}},
    {"id": "2", "label": "a", "vitals": {"sex": "f"}},
]


@inputs(400)
def test_tables_of_shards(folder: Path, seed: int) -> None:
    random, shard = Random(seed), folder / "tables"
    shard.mkdir(exist_ok=True)
    text = json.dumps(changed(TABLES, random) if random.random() < 0.5 else TABLES).encode()
    (shard / "shard.json").write_text(json.dumps({"site": "s", "classes": ["a"], "modalities": ["vitals"]}))
    (shard / "columns.json").write_bytes(damaged(text, random) if random.random() < 0.3 else text)
    (shard / "metadata.jsonl").write_bytes(lines(ROWS, random))
    with suppress(FedmosaicError):
        opened = open_shard(shard)
        rows = [record.rows["vitals"] for record in opened.records if record.has("vitals")]
        told = description(opened.columns["vitals"], opened.records, "vitals", fewest=1)
        for row in rows:
            assert row.cells.keys() <= told.keys()


@inputs(400)
def test_completed_lines(shard: Path, seed: int) -> None:
    random = Random(seed)
    (shard / "shard.json").write_text(json.dumps(INFO))
    (shard / "metadata.jsonl").write_text(json.dumps(RECORDS[2]) + "\n")
    opened = open_shard(shard)
    made = folder_of(opened, "image", COMPLETER)
    made.mkdir(parents=True, exist_ok=True)
    (made / LINES).write_bytes(lines(MADE, random))
    with suppress(FedmosaicError):
        for value in find_completed(opened, "image", COMPLETER).values():
            assert isinstance(value, str) or value.resolve().is_relative_to(made)


PARAMS = {"a.weight": torch.randn(3, 2), "b": torch.zeros(4), "c": torch.tensor(1.0)}


@inputs(1200)
def test_packed_parameters(seed: int) -> None:
    random = Random(seed)
    tensors: dict[str, torch.Tensor] = dict(PARAMS)
    if random.random() < 0.2:
        tensors["b"] = tensors["b"].to(random.choice((torch.int64, torch.bool, torch.complex64, torch.float16)))
    data = save(tensors)
    data = damaged(data, random) if random.random() < 0.7 else data
    if random.random() < 0.3:  # the JSON inside
        header = int.from_bytes(data[:8], "little")
        inner = damaged(data[8 : 8 + header], random)
        data = len(inner).to_bytes(8, "little") + inner + data[8 + header :]
    array = Array(np.frombuffer(data, dtype=np.uint8))
    if random.random() < 0.4:  # what Flower's own array holds
        kind = random.choice(("uint8", "float32", "object", "<U9", "", "x"))
        size = random.choice(((3,), (0,), (-1,), (2, 2), (10**18,)))
        array = Array(kind, size, random.choice(("numpy.ndarray", "x")), damaged(array.data, random))
    record = ArrayRecord({random.choice(("params", "params", "params", "x")): array})
    with suppress(FedmosaicError):
        assert all(value.dtype == torch.float32 for value in wire.unpack(record).values())
    message = Message(RecordDict({"params": record}), dst_node_id=1, message_type="train")
    with suppress(FedmosaicError):
        params = wire.read_params(message, PARAMS, random.choice(("float32", "bfloat16")))
        assert {name: value.shape for name, value in params.items()} == {n: v.shape for n, v in PARAMS.items()}


TALLY = {
    "answers": {"at": [0, 1], "counts": [1, 3], "sums": [0.5]},
    "confusion": {"at": [0, 1, 3], "counts": [1, 1, 2], "sums": [1.5, 0.5]},
    "scores": {"at": [3, 200, 350], "counts": [4, 2, 2], "sums": []},
}
SITE = Site("s", frozenset({"audio"}), ("a", "b"), 5, {})
TASK = task_of(SingleLabel(), SITE.classes)
REPLY = {
    "site": "s", "round": 1, "num_examples": 5, "losses": {"fused": 1.0}, "validation": {"audio": TALLY},
    "unreadable": {"image": 2}, "seconds": {"load": 0.1}, "modalities": ["audio"],
}  # fmt: skip
INTRODUCTION = {
    "site": "s", "modalities": ["audio"], "classes": ["a", "b"], "num_examples": 5, "unreadable": {}, "error": "no",
}  # fmt: skip


def body_of(content: Any, random: Random) -> dict[str, Any]:
    """What of a content arrives, after its JSON was damaged now and then."""
    text = json.dumps(changed(content, random)).encode()
    text = damaged(text, random) if random.random() < 0.3 else text
    said = RecordDict({"body": ConfigRecord({"json": text.decode("utf-8", "replace")})})
    return wire.read_body(Message(said, dst_node_id=1, message_type="train"))


@inputs(1000)
def test_replies_to_training(seed: int) -> None:
    random = Random(seed)
    with suppress(FedmosaicError):
        reply, tallies = read_training_reply(body_of(REPLY, random), 1, SITE, TASK)
        weighted = sum(float(loss) * reply.num_examples for loss in reply.losses.values())
        told = figures(merge(tallies, tallies), standard(TASK.name))
        json.dumps([weighted, told, reply.unreadable, reply.seconds], allow_nan=False)


@inputs(900)
def test_introductions(seed: int) -> None:
    random = Random(seed)
    content: dict[str, Any] = dict(INTRODUCTION)
    if random.random() < 0.7:
        del content["error"]
    with suppress(FedmosaicError):
        read_introduction(body_of(content, random))


@inputs(500)
def test_policies(folder: Path, seed: int) -> None:
    random = Random(seed)
    path = folder / "site.yaml"
    path.write_bytes(damaged(POLICY, random))
    with suppress(FedmosaicError):
        read_policy(path).figures({"site": "s"})


@inputs(200)
def test_counts_of_updates(folder: Path, seed: int) -> None:
    count = SiteState(folder / "count.json")
    count.path.write_bytes(damaged(b'{"updates": 3}\n', Random(seed)))
    with suppress(FedmosaicError):
        count.count_update(10**9)


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("pyproject.toml", (ROOT / "pyproject.toml").read_bytes())
        packed.writestr("client/site.py", (ROOT / "client" / "site.py").read_bytes())
    return buffer.getvalue()


APP = archive()


@inputs(200)
def test_apps(seed: int) -> None:
    with suppress(FedmosaicError):
        check_fab(damaged(APP, Random(seed)))
        raise AssertionError("an app without most of its code was accepted")


def media() -> dict[str, bytes]:
    """A small file of each kind that is read."""
    pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    files = {}
    forms = {"png": "PNG", "jpg": "JPEG", "bmp": "BMP", "webp": "WEBP", "gif": "GIF", "tif": "TIFF"}
    for ending, form in forms.items():
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format=form)
        files[ending] = buffer.getvalue()
    wide = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000)
    for ending, options in (("tiff", {"compression": "tiff_lzw"}), ("TIF", {})):
        buffer = io.BytesIO()
        wide.save(buffer, format="TIFF", **options)
        files[ending] = buffer.getvalue()
    sound = np.sin(np.arange(400) / 5).astype(np.float32)
    for ending, form in (("wav", "WAV"), ("flac", "FLAC"), ("ogg", "OGG"), ("aiff", "AIFF")):
        buffer = io.BytesIO()
        soundfile.write(buffer, sound, 8000, format=form)
        files[ending] = buffer.getvalue()
    files |= {"npy": encode_array(np.ones((5, 3), np.float32)), "txt": b"a blue bird, singing"}
    with tempfile.TemporaryDirectory() as name:
        folder, frames = Path(name), np.arange(192, dtype=np.uint16).reshape(3, 8, 8)
        dicom(folder / "a.dcm", frames, WindowCenter=100, WindowWidth=50, RescaleSlope=2, RescaleIntercept=-5)
        dicom(folder / "b.dcm", np.arange(64, dtype=np.uint8).reshape(8, 8), RLELossless)
        volume(folder / "a.nii", frames, slope=0.5, inter=-3)
        volume(folder / "b.nii.gz", frames)
        return files | {path.name: path.read_bytes() for path in folder.iterdir()}


MEDIA = media()
IMPORTED = {".dcm": read_dicom, ".nii": read_nifti}


@inputs(1800)
def test_media_files(folder: Path, seed: int) -> None:
    random = Random(seed)
    ending = random.choice(list(MEDIA))
    content = damaged(MEDIA[random.choice([ending, ending, ending, *MEDIA])], random)
    path = folder / f"file.{ending}"
    path.write_bytes(content)
    reader = IMPORTED.get(kind(path))
    with suppress(ValueError, MemoryError):
        reader(path, None, Choice(random.choice((None, 2)))).encoded(False) if reader else read(path)


MODEL_FILES = {
    "open_clip_config.json": json.dumps({"model_cfg": {
        "embed_dim": 12, "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "hf_tokenizer_name": "."}}}),
    "config.json": json.dumps({"model_type": "bert", "hidden_size": 16, "architectures": ["BertModel"]}),
    "tokenizer_config.json": json.dumps({"tokenizer_class": "BertTokenizer", "model_max_length": 16}),
    "model_index.json": json.dumps({"_class_name": "StableDiffusionPipeline", "vae": ["diffusers", "AutoencoderKL"],
                                    "text_encoder": ["transformers", "CLIPTextModel"]}),
    "models.lock.json": json.dumps({"m": {"revision": "a" * 40, "fingerprint": "b" * 16}}),
}  # fmt: skip


@inputs(500)
def test_model_folders(folder: Path, seed: int) -> None:
    random = Random(seed)
    spoiled = random.choice(list(MODEL_FILES))
    for name, text in MODEL_FILES.items():
        content = json.dumps(changed(json.loads(text), random)) if name == spoiled and seed % 2 else text
        data = (
            damaged(content.encode(), random)
            if name == spoiled and not seed % 2
            else content.encode("utf-8", "replace")
        )
        (folder / name).write_bytes(data)
    for look in (check, lambda one: check_open_clip(one, open_clip_config(one)), check_pipeline, read_lock):
        with suppress(FedmosaicError):
            look(folder)


def test_an_alias_that_stands_for_more_than_memory_holds_is_refused_at_once() -> None:
    bomb = "\n".join(["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40))])
    with pytest.raises(FedmosaicError, match="aliases expanded"):
        parse_yaml(bomb.encode(), "bomb", "")
    raw = {**RAW, "data": {**RAW["data"], "limit": 10**5000}}
    with pytest.raises(FedmosaicError):
        parse(raw, "huge")


def test_a_time_that_is_none_is_not_yaml(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("min_examples: !!timestamp 2001-02-31nan\n")
    with pytest.raises(PolicyError, match="not YAML"):
        read_policy(tmp_path / "site.yaml")
