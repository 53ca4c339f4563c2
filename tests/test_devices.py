"""Training on a device: the pretended one gives the processor's numbers, mixed precision, and faults of a device."""

import importlib
import inspect
import json
import logging
import operator
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from conftest import ROOT, experiment
from test_cli import call
from test_frozen_encoders import ENCODERS
from test_frozen_encoders import encoder as frozen_encoder
from test_methods import SMALL
from test_policy import train_message

from client.methods.base import Method, Round
from client.methods.fedavg import FedAvg
from client.methods.shared.criterion import Criterion
from client.optimizer import make_optimizer
from client.policy import Policy
from client.site import Site
from client.step import Step
from client.train import train
from common.blocks import Params, get_params
from common.config.component import build, own_names
from common.config.experiment import Experiment, Train
from common.config.task import MultiLabel, SingleLabel, TaskName
from common.errors import DeviceError, PolicyError
from common.evaluation.evaluate import evaluate
from common.hardware import device as devices
from common.hardware.computing import Hardware, cores
from common.hardware.device import find_device
from common.hardware.faults import device_error, is_out_of_memory
from common.models.base import MultimodalModel
from common.tasks.base import Task
from common.tasks.find import task_of
from common.types import CPU, Batch, Origin
from deploy.engines.in_process import claim_identity
from deploy.engines.launch import Engine, Plan, side_by_side
from fedmosaic.testing.examples import CLASSES, MODALITIES, picture_encoders, pictures
from fedmosaic.testing.pretend_device import FAR, pretended

CLOSE = {"joint": 1e-4}
"""By model, how far results on the pretended device may be from the processor's, where attention has another kernel."""

NAMES = ["one", "two", "three", "four"]
RATE = 0.1
PAIRS = [(name, task) for name in own_names("method") for task in sorted(build("method", {"name": name}).tasks)]
"""Every method with each of its tasks."""
SLOW = {("multi-label", "bfloat16"), ("regression", "float16")}
PRECISIONS = [
    pytest.param(*pair, precision, marks=[pytest.mark.slow] if (pair[1], precision) in SLOW else [])
    for pair in PAIRS for precision in ("bfloat16", "float16")
]  # fmt: skip
"""Every method with each of its tasks and each precision. The quick ones have both precisions of every method, because
every method has the task single-label, and every task of every method."""


@pytest.fixture
def far() -> Iterator[torch.device]:
    with pretended() as device:
        yield device


def made(method: str, seed: int = 0) -> MultimodalModel:
    torch.manual_seed(seed)
    name = build("method", {"name": method}).model
    architecture = build("model", {"name": name, **SMALL.get(name, {})})
    model: MultimodalModel = architecture.build(picture_encoders(2), CLASSES)
    return model


def tiny(method: str, **changes: Any) -> Experiment:
    encoder = {"name": "image", "size": 8}
    return experiment(
        method=method, model__encoders=dict.fromkeys(MODALITIES[2], encoder), data={"clients": 2}, train__batch_size=8,
        federation__rounds=4, **changes
    )  # fmt: skip


def trained(
    model: MultimodalModel, chosen: Experiment, examples: Batch | None = None
) -> tuple[Params, dict[str, float]]:
    losses = train(model, pictures(2, missing=0.3) if examples is None else examples, chosen, 2, "a", NAMES)
    return get_params(model), losses


class TestThePretendedDevice:
    @pytest.mark.parametrize(("method", "task"), PAIRS)
    def test_a_round_gives_the_processors_numbers(self, method: str, task: TaskName, far: torch.device) -> None:
        balanced: dict[str, Any] = {"train__label_smoothing": 0.1, "train__class_weights": "inverse"}
        more = {"task": task} if task == "regression" else {"task": task, **balanced}
        chosen, examples = tiny(method, train__clip_norm=1.0, **more), pictures(2, 0.3, task)
        here, losses = trained(made(method), chosen, examples)
        there, losses_there = trained(made(method).to(far), chosen, examples)
        tolerance = CLOSE.get(build("method", {"name": method}).model, 0)
        assert here.keys() == there.keys()
        for name, value in here.items():
            assert torch.allclose(value, there[name], rtol=0, atol=tolerance), name
        assert losses_there == pytest.approx(losses, abs=tolerance)

    @pytest.mark.parametrize(
        "task", [task_of(SingleLabel(), NAMES), task_of(MultiLabel(), NAMES)], ids=lambda t: t.name
    )
    @pytest.mark.parametrize("architecture", own_names("model"))
    def test_counts_of_predictions_are_the_processors(self, architecture: str, task: Task, far: torch.device) -> None:
        torch.manual_seed(1)
        model = build("model", {"name": architecture}).build(picture_encoders(2), CLASSES)
        examples = pictures(2, 0.3, task.name)
        here = evaluate(model, examples, 16, task)
        there = evaluate(model.to(far), examples, 16, task)
        assert here.keys() == there.keys()
        for name, tally in here.items():
            assert tally.parts["confusion"].counts.tolist() == there[name].parts["confusion"].counts.tolist()

    @pytest.mark.usefixtures("models")
    @pytest.mark.parametrize(("name", "options", "raw"), [one[:3] for one in ENCODERS], ids=lambda v: str(v)[:40])
    def test_frozen_features_are_the_processors(
        self, name: str, options: dict[str, Any], raw: Any, far: torch.device
    ) -> None:
        here = frozen_encoder(name, options).prepare(raw)
        encoder = frozen_encoder(name, options).to(far)
        there = encoder.prepare(raw)
        assert (
            encoder.tower.network.get_parameter(next(iter(dict(encoder.tower.network.named_parameters())))).device
            == FAR
        )
        encoder.rest()
        assert {value.device for value in encoder.tower.network.parameters()} == {CPU}
        assert torch.allclose(here, there, atol=2e-3)

    def test_it_refuses_to_mix_devices(self, far: torch.device) -> None:
        with pytest.raises(RuntimeError, match="on the processor"):
            torch.ones(3).to(far) + torch.ones(3)
        assert (torch.ones(3).to(far) + 1).cpu().tolist() == [2, 2, 2]


def _train(method: str, far: torch.device) -> None:
    trained(made(method).to(far), tiny(method, train__class_weights={"one": 2.0}))


def _regress(far: torch.device) -> None:
    trained(made("fedavg").to(far), tiny("fedavg", task="regression"), pictures(2, task="regression"))


def _predict_nothing(far: torch.device) -> None:
    """A prediction for rows of which none has modality "b" and one has no modality at all."""
    batch = pictures(2).only(["a"])
    batch.origin["a"][0] = Origin.MISSING
    for architecture in ("late-fusion", "two-projector"):
        options = {"fill": "zero"} if architecture == "two-projector" else {}
        model = build("model", {"name": architecture, **options}).build(picture_encoders(2), CLASSES).to(far)
        model.predict(batch.to(far))


def _extract(far: torch.device) -> None:
    name, options, raw = ENCODERS[0][:3]
    frozen_encoder(name, options).to(far).prepare(raw)


MOVES: list[tuple[str, str, str, Callable[[torch.device], object]]] = [
    ("common.models.base:MultimodalModel.encode", ", device=self.device", "", _predict_nothing),
    ("common.models.two_projector:TwoProjectorModel._filler", ", device=self.device", "", _predict_nothing),
    ("common.models.joint:JointModel._stream", ", tokens.device", "", partial(_train, "fedmvp")),
    ("common.models.joint:JointModel._empty", ", device=self.classifier.weight.device", "", partial(_train, "fedmvp")),
    ("common.models.shared.attention:positions", "device=device", "", partial(_train, "fedmvp")),
    ("common.encoders.base:Encoder.tokens", ", device=features.device", "", partial(_train, "fedmvp")),
    ("common.encoders.base:FrozenEncoder.extract", "tower.network.to(device)", "", _extract),
    ("common.encoders.base:FrozenEncoder.extract", "inputs.to(device)", "inputs", _extract),
    ("client.methods.fedmvp:contrastive_loss", ", device=anchors.device", "", partial(_train, "fedmvp")),
    ("client.methods.fedcmi:FedCMI.begin_round", ").to(model.device)", ")", partial(_train, "fedcmi")),
    ("client.methods.fedcmi:truth_probabilities", ", model.device", "", partial(_train, "fedcmi")),
    ("client.methods.fedcmi_gated:FedCMIGated.begin_round", ".to(model.device)", "", partial(_train, "fedcmi-gated")),
    ("client.methods.shared.criterion:criterion_of", "weights.to(device)", "weights", partial(_train, "fedavg")),
    (
        "client.methods.shared.criterion:criterion_of",
        "torch.tensor(mean, device=device)",
        "torch.tensor(mean)",
        _regress,
    ),
    ("client.methods.shared.prototypes:class_sums", ".width, device=model.device", ".width", partial(_train, "pmr")),
    ("client.methods.shared.prototypes:class_sums", "classes, device=model.device", "classes", partial(_train, "pmr")),
    ("client.methods.shared.prototypes:class_sums", "batch_size, model.device", "batch_size", partial(_train, "pmr")),
    ("client.train:_pass", "model.device, order", "torch.device('cpu'), order", partial(_train, "fedavg")),
]
"""A function, a part of its source that moves something to the device, its replacement, and work on the device."""


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(("place", "move", "instead", "work"), MOVES, ids=[f"{one[0]} {one[1]}" for one in MOVES])
def test_work_fails_without_any_single_move(
    place: str,
    move: str,
    instead: str,
    work: Callable[[torch.device], object],
    far: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module, _, name = place.partition(":")
    function = inspect.unwrap(operator.attrgetter(name)(importlib.import_module(module)))
    source = textwrap.dedent(inspect.getsource(function))
    assert move in source
    changed: dict[str, Any] = dict(function.__globals__)
    exec(source.replace(move, instead), changed)
    monkeypatch.setattr(function, "__code__", inspect.unwrap(changed[name.rpartition(".")[2]]).__code__)
    with pytest.raises(RuntimeError, match="on the processor"):
        work(far)


class TestMixedPrecision:
    @pytest.mark.parametrize(("method", "task", "precision"), PRECISIONS)
    def test_weights_stay_float32_and_the_loss_is_near_that_of_float32(
        self, method: str, task: TaskName, precision: str
    ) -> None:
        examples = pictures(2, 0.3, task)
        options = {"task": task, "train__lr": 0.001}
        _, exact = trained(made(method), tiny(method, **options), examples)
        params, losses = trained(made(method), tiny(method, **options, train__precision=precision), examples)
        assert {value.dtype for value in params.values()} == {torch.float32}
        assert losses.keys() == exact.keys()
        assert losses["fused"] == pytest.approx(exact["fused"], rel=0.05)

    def test_layers_compute_in_the_chosen_type(self) -> None:
        seen: list[torch.dtype] = []
        model = made("fedavg")
        model.encoder("a").register_forward_hook(lambda _, inputs, output: seen.append(output.dtype))
        trained(model, tiny("fedavg", train__precision="bfloat16"))
        assert set(seen) == {torch.bfloat16}


class Hungry(FedAvg):
    """A method that needs too much memory for more than `room` rows."""

    room: int
    error: type[Exception] = torch.OutOfMemoryError

    def loss(self, model: Any, batch: Batch, context: Criterion) -> Any:
        if len(batch) > self.room:
            raise self.error("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().loss(model, batch, context)


def hungry(room: int) -> Method[MultimodalModel, object]:
    return Hungry(room=room)  # type: ignore[return-value]


def step_of(model: MultimodalModel, method: Any, criterion: Criterion | None = None) -> Step:
    settings, chosen = Train(lr=RATE), criterion or Criterion()
    context = method.begin_round(model.eval(), pictures(2), Round(2, frozenset(MODALITIES[2]), 8, chosen))
    return Step(model.train(), method, context, chosen, make_optimizer(model, settings), settings)


class TestOutOfMemory:
    def test_two_halves_give_the_same_step(self, caplog: pytest.LogCaptureFixture) -> None:
        batch = pictures(2, missing=0.3).rows(torch.arange(9))
        whole, halved = made("fedavg"), made("fedavg")
        one, step = step_of(whole, FedAvg()), step_of(halved, hungry(5))
        expected = [one.take(batch, RATE), one.take(batch, RATE)]
        with caplog.at_level(logging.WARNING):
            found = [step.take(batch, RATE), step.take(batch, RATE)]
        assert [record.message for record in caplog.records] == [
            "the memory of the machine is full: each batch is computed in two halves from now on"
        ]
        assert [float(terms["fused"]) for terms in found] == pytest.approx(
            [float(t["fused"]) for t in expected], rel=1e-6
        )
        assert all(
            torch.allclose(value, get_params(whole)[name], atol=1e-6) for name, value in get_params(halved).items()
        )

    def test_a_second_time_the_site_refuses_with_a_remedy(self) -> None:
        with pytest.raises(DeviceError, match=r"even with half a batch \(24 examples\): lower train.batch_size"):
            step_of(made("fedavg"), hungry(8)).take(pictures(2), RATE)

    def test_another_error_is_not_taken_for_it(self) -> None:
        method = Hungry(room=0, error=ZeroDivisionError)
        with pytest.raises(ZeroDivisionError):
            step_of(made("fedavg"), method).take(pictures(2), RATE)


FAULTS = [
    (
        "The NVIDIA driver on your system is too old: CUDA driver version is insufficient for CUDA runtime",
        "update the driver",
    ),
    ("CUDA error: no kernel image is available for execution on the device\nmore", "has no code for this model of GPU"),
    ("CUDA error: all CUDA-capable devices are busy or unavailable", "another process has exclusive use"),
    ("CUDA error: unspecified launch failure", "the GPU stopped working"),
    ("index_add_cuda_ does not have a deterministic implementation, but you set", "set train.deterministic to false"),
    ("CUDA out of memory. Tried to allocate 20.00 MiB", "the memory of the device is full"),
    ("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory", "lower the batch size"),
]


class TestFaults:
    @pytest.mark.parametrize(("said", "words"), FAULTS)
    def test_torchs_message_becomes_one_that_helps(self, said: str, words: str) -> None:
        error = device_error(RuntimeError(said))
        assert words in str(error)
        assert said.splitlines()[0][:60] in str(error)

    def test_other_errors_stay_what_they_are(self) -> None:
        assert device_error(RuntimeError("shape mismatch")) is None
        assert device_error(KeyError("CUDA error")) is None
        assert is_out_of_memory(MemoryError())

    def test_a_site_refuses_the_round_and_asks_for_a_new_process(
        self, tiny_shards: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise RuntimeError("CUDA error: unspecified launch failure\nCompile with ...")

        claim_identity()
        site = Site(tiny_shards / "client-1")
        monkeypatch.setattr("client.site.train", fail)
        reply = site.answer(train_message(experiment(), ["audio", "image"]))
        assert "DeviceError: the GPU stopped working" in str(reply["body"]["json"])
        assert site.device_failed


class TestChoosingADevice:
    @pytest.mark.parametrize(
        ("name", "words"),
        [("gpu", "use auto, cpu, cuda, cuda:N or mps"), ("cuda:x", "is unknown"), ("cuda:7", "device cuda:7: ")],
    )
    def test_one_that_cannot_be_used_is_an_error_with_the_reason(self, name: str, words: str) -> None:
        with pytest.raises(DeviceError, match=words):
            find_device(name)

    def test_the_pretended_device_is_found_and_counted(self) -> None:
        assert find_device("far") == FAR
        with pytest.raises(DeviceError, match="this machine has 1 of type far"):
            find_device("far:4")

    @pytest.mark.parametrize(("free", "taken"), [([3, 9, 5], 1), ([9], 0), ([1, 1], None), ([], None)])
    def test_auto_takes_the_gpu_with_most_free_memory(
        self, free: list[int], taken: int | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(devices, "_is_available", lambda kind: kind == "cuda" and bool(free))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(free))
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (free[index] << 30, 80 << 30))
        assert find_device("auto") == (CPU if taken is None else torch.device("cuda", taken))

    def test_a_site_stays_with_the_gpu_that_it_took(self, tiny_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        free = iter(["far:0", "cpu", "cpu"])
        monkeypatch.setattr(
            "common.hardware.computing.find_device",
            lambda name: torch.device(next(free, name) if name == "auto" else name),
        )
        claim_identity()
        site = Site(tiny_shards / "client-1", hardware=Hardware("auto"))
        with pretended():
            replies = [site.answer(train_message(experiment(), ["audio", "image"], number)) for number in (1, 2)]
        assert [json.loads(str(reply["body"]["json"]))["device"] for reply in replies] == ["far:0, float32"] * 2

    def test_a_policy_may_forbid_gpus(self) -> None:
        strict = Policy(gpu=False)
        assert strict.hardware(Hardware("auto")).device == "cpu"
        assert strict.hardware(Hardware("cpu")).device == "cpu"
        with pytest.raises(PolicyError, match=r"forbids GPUs \(gpu\), but its node has --device cuda:1"):
            strict.hardware(Hardware("cuda:1"))
        assert Policy().hardware(Hardware("cuda:1")).device == "cuda:1"
        assert "no GPU may be used" in strict.in_words()

    def test_a_node_is_fast_and_a_site_on_this_machine_is_deterministic(self) -> None:
        assert Hardware.of_node({"shard": "x"}) == Hardware("auto", 0, False)
        assert Hardware.of_node(Hardware("cpu", 2, True).settings()) == Hardware("cpu", 2, True)
        Hardware().use()
        assert (torch.get_num_threads(), torch.get_deterministic_debug_mode()) == (1, 2)
        Hardware(threads=2).use(deterministic=False)
        assert (torch.get_num_threads(), torch.get_deterministic_debug_mode()) == (2, 0)
        Hardware(deterministic=False).use()
        assert torch.get_num_threads() == cores()

    def test_fast_results_differ_by_rounding_errors(self) -> None:
        exact, losses = trained(made("fedcmi"), tiny("fedcmi"))
        Hardware(threads=2).use(deterministic=False)
        fast, fast_losses = trained(made("fedcmi"), tiny("fedcmi"))
        assert fast_losses == pytest.approx(losses, rel=1e-4)
        assert all(torch.allclose(value, exact[name], atol=1e-4) for name, value in fast.items())


WRONG = [
    (["--engine", "superlink", "--device", "auto"], "--device: each site chooses its own device"),
    (
        ["--engine", "simulation", "--device", "cuda:1"],
        "--device cuda:1: a simulation divides its clients among all GPUs",
    ),
    (["--engine", "processes", "--gpus-per-client", "0.5"], "--gpus-per-client needs --engine simulation"),
    (
        ["--engine", "simulation", "--device", "auto", "--gpus-per-client", "1.5"],
        "--gpus-per-client is 1.5: it must be",
    ),
    (["--engine", "inprocess", "--device", "gpu"], "device 'gpu' is unknown"),
    (["--engine", "inprocess", "--server-device", "cuda:9"], "device cuda:9: "),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=lambda value: str(value)[:50])
def test_a_run_with_an_impossible_device_ends_before_it_starts(
    arguments: list[str], words: str, tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.yaml").write_text(experiment().to_yaml())
    told = ["run", tmp_path / "tiny.yaml", "--shards", tiny_shards, "--run-dir", tmp_path / "run", *arguments]
    assert call(*told) in (1, 2)
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("share", "gpus", "said"), [
    (0.0, 0, "1 of 5 clients train side by side (one core per client)"),
    (0.25, 1, "1 of 5 clients train side by side (one core per client, and 0.25 of 1 GPUs)"),
])  # fmt: skip
def test_a_simulation_says_how_many_clients_train_side_by_side(
    share: float, gpus: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.engines.launch.cores", lambda: 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert side_by_side(5, share) == said
    monkeypatch.setattr("deploy.engines.launch.cores", lambda: 16)
    assert side_by_side(5, share).startswith("4" if share else "5")


def test_a_run_that_flower_starts_has_every_setting() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    assert declared.keys() == Plan("superlink", experiment(), Path("shards")).settings().keys()


def test_the_cores_are_divided_among_the_processes_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.engines.launch.cores", lambda: 9)
    chosen = experiment(data__clients=4)
    threads = {engine: Plan(engine, chosen, Path("shards")).settings()["threads"] for engine in get_args(Engine)}
    assert threads == {"inprocess": "0", "superlink": "0", "processes": "2", "simulation": "2"}
