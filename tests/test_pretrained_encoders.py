"""Pre-trained encoders that are trained further: wholly, in their last blocks, or by adapters."""

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from test_frozen_encoders import ENCODERS, OTHER, PICTURE, TEXT
from torch import Tensor, nn

from common.config.component import build
from common.data.prepared.made import Made
from common.encoders.base import Encoder
from common.encoders.shared.adapters import Lora, add_adapters
from common.encoders.shared.network_blocks import Used, block_names, block_numbers, used_by
from common.encoders.shared.trained_tower import TrainedTower
from common.errors import ConfigError, ModelError
from common.media.sounds import Sound
from common.media.values import Raw
from common.seeding import seeded
from common.types import CPU
from fedmosaic.testing import EncoderContract
from fedmosaic.testing.devices import on
from fedmosaic.testing.encoders import RAWS
from fedmosaic.testing.pretend_device import FAR

Case = tuple[str, dict[str, Any], Raw]
TOWERS: list[Case] = [(name, options, raw) for name, options, raw, _ in ENCODERS if name != "mixed"]
WAYS = ["all", "last-1-block", "lora"]
UNUSED = {"wav2vec2": {"masked_spec_embed"}, "bert-mean": {"pooler.dense.weight", "pooler.dense.bias"}}
"""By model, the weights on which the features do not depend."""
QUICK = {"torchvision-video": ["lora"], "timm": WAYS}
"""The ways that are not slow tests: the smallest video network of torchvision is large."""
PAIRS = [
    pytest.param(
        case, way, id=f"{case[0]}-{'-'.join(map(str, case[1].values()))}-{way}",
        marks=[pytest.mark.slow] if way not in QUICK.get(case[0], ["all", "lora"]) else [],
    )
    for case in TOWERS for way in WAYS
]  # fmt: skip
FAR_QUICK = {"timm": "timm", "transformers-text": "clip_text", "transformers-sound": "wav2vec2"}
"""Encoder and model for pictures, texts and recordings, whose tests on the pretended device are not slow tests."""
PLACES = [
    pytest.param(
        case, way, device, id=f"{device}-{pair.id}",
        marks=pair.marks or ([] if device == CPU or (quick and way != "last-1-block") else [pytest.mark.slow]),
    )
    for pair in PAIRS for case, way in [pair.values] for device in (CPU, FAR)
    for quick in [FAR_QUICK.get(case[0]) in case[1].values()]
]  # fmt: skip
KINDS = {str: "a text", Image.Image: "a picture", type(RAWS["a recording"]): "a recording", np.ndarray: "frames"}


def made(name: str, options: dict[str, Any], **more: Any) -> Any:
    with seeded(0, "weights"):
        return build("encoder", {"name": name, **options, **more}).build()


@pytest.mark.usefixtures("models", "device")
@pytest.mark.parametrize(("case", "way", "device"), PLACES, indirect=["device"])
class TestEveryTrainedTower(EncoderContract):
    @pytest.fixture
    def options(self, case: Case, way: str) -> Any:
        return build("encoder", {"name": case[0], **case[1], "train": way})

    @pytest.fixture
    def device(self, way: str) -> Iterator[torch.device]:
        """Every network is on both devices: wholly trained on the pretended one, in the other ways on the processor."""
        with on(FAR if way == "all" else CPU) as device:
            yield device

    @pytest.fixture
    def value(self, case: Case) -> Any:
        return case[2]

    @pytest.fixture
    def taken(self, value: Raw) -> set[str]:
        return {KINDS[type(value)]}

    def test_it_begins_with_the_features_of_the_frozen_network(
        self, case: Case, value: Raw, encoder: Encoder, device: torch.device
    ) -> None:
        frozen = made(*case[:2])
        values = [value, OTHER[type(value)]]
        wanted = frozen(torch.stack([frozen.prepare(one) for one in values]))
        found = encoder.eval()(torch.stack([encoder.prepare(one) for one in values]).to(device))
        assert torch.allclose(found.cpu(), wanted, atol=5e-3)

    def test_only_what_is_trained_is_in_the_state_and_is_kept_by_a_switch_of_the_whole(
        self, encoder: TrainedTower, options: Any, way: str
    ) -> None:
        trained = {name for name, _ in encoder.named_parameters()}
        learned = {name for name, value in encoder.state_dict().items() if value.is_floating_point()}
        assert learned == trained
        encoder.requires_grad_(False).requires_grad_(True)
        assert {name for name, value in encoder.named_parameters() if value.requires_grad} == trained
        network = options.load().network
        whole = {name for name, _ in network.named_parameters()}
        if way == "all":
            key = f"{options.model}{'-mean' if getattr(options, 'pooling', None) == 'mean' else ''}"
            assert whole - {name.removeprefix("network.") for name in trained} == UNUSED.get(key, set())
        elif way == "lora":
            assert all("lora_" in name for name in trained)
        else:
            assert 0 < len(trained) < len(whole)

    def test_training_changes_the_trained_part_alone(
        self, encoder: TrainedTower, value: Raw, way: str, device: torch.device
    ) -> None:
        fixed = {name: tensor.clone() for name, tensor in encoder.named_buffers()}
        before = {name: tensor.detach().clone() for name, tensor in encoder.named_parameters()}
        step = torch.optim.SGD(encoder.parameters(), 0.5)
        inputs = torch.stack([encoder.prepare(one) for one in (value, OTHER[type(value)])]).to(device)
        encoder.train()
        for _ in range(2):  # the first step of adapters changes one half of each
            step.zero_grad()
            (encoder(inputs)[0] * torch.arange(encoder.width, device=device)).sum().backward()
            step.step()
        assert all(torch.equal(tensor, fixed[name]) for name, tensor in encoder.named_buffers())
        changed = [name for name, tensor in encoder.named_parameters() if not torch.equal(tensor, before[name])]
        assert len(changed) >= len(before) / 2


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(("case", "way"), PAIRS)
def test_processes_that_prepare_values_need_no_weights(case: Case, way: str) -> None:
    value = case[2]
    preparer = Made({"name": case[0], **case[1], "train": way}).build()
    whole = made(*case[:2], train=way)
    assert not list(preparer.parameters()) and not list(preparer.buffers())
    assert torch.equal(preparer.prepare(value), whole.prepare(value))
    assert torch.equal(preparer.blank(), whole.blank())


@pytest.mark.usefixtures("models")
def test_a_copy_shares_the_fixed_weights_and_nothing_else() -> None:
    encoder = made("timm", {"pretrained": "timm"}, train="lora")
    copied = copy.deepcopy(encoder)
    assert {value.data_ptr() for value in copied.buffers()} == {value.data_ptr() for value in encoder.buffers()}
    assert not {value.data_ptr() for value in copied.parameters()} & {v.data_ptr() for v in encoder.parameters()}
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.add_(1)
    inputs = encoder.prepare(PICTURE)[None]
    assert not torch.allclose(copied.eval()(inputs), encoder.eval()(inputs), atol=1e-3)


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(("name", "given", "value"), TOWERS, ids=lambda value: str(value)[:40])
def test_merged_adapters_give_the_same_features(name: str, given: dict[str, Any], value: Raw) -> None:
    encoder = made(name, given, train="lora", lora={"rank": 2, "alpha": 8})
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) / 20)
    inputs = encoder.prepare(value)[None]
    wanted = encoder.eval()(inputs).detach()
    assert not torch.allclose(wanted, made(name, given)(made(name, given).prepare(value)[None]), atol=1e-2)
    merged = encoder.merge().eval()
    assert torch.allclose(merged(inputs), wanted, atol=1e-4)
    assert not any("lora" in key for key in merged.state_dict())


class TestBlocks:
    @pytest.mark.parametrize(
        ("architecture", "count", "last"),
        [
            ("vit_tiny_patch16_224", 12, "blocks.11"),
            ("mobilenetv2_100", 17, "blocks.6.0"),
            ("resnet18", 8, "layer4.1"),
            ("convnext_atto", 4, "stages.3"),
            ("swin_tiny_patch4_window7_224", 4, "layers.3"),
            ("efficientnet_b0", 16, "blocks.6.0"),
            ("regnety_002", 11, "s4.b7"),
        ],
    )
    def test_of_known_networks(self, architecture: str, count: int, last: str) -> None:
        with torch.device("meta"):
            names = block_names(timm.create_model(architecture))
        assert (len(names), names[-1]) == (count, last)

    def test_what_follows_the_last_block_is_trained_with_it_but_embeddings_are_not(self) -> None:
        class Network(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.stem = nn.Linear(2, 2)
                self.blocks = nn.ModuleList([nn.Sequential(), nn.TransformerEncoderLayer(2, 1)])
                self.words = nn.Embedding(3, 2)
                self.norm = nn.LayerNorm(2)

        numbers = block_numbers(Network())
        assert {numbers[name] for name in ("stem.weight", "words.weight")} == {-1}
        assert {number for name, number in numbers.items() if name.startswith(("blocks", "norm"))} == {0}

    def test_the_learning_rate_decays_from_the_last_block(self, models: Path) -> None:
        encoder = made("timm", {"pretrained": "timm"}, train="all", lr_scale=0.1, layer_decay=0.5)
        assert encoder.lr_factor("network.bn2.weight") == encoder.lr_factor("network.blocks.6.0.bn1.weight") == 0.05
        assert encoder.lr_factor("network.blocks.5.2.bn1.weight") == 0.025
        assert encoder.lr_factor("network.conv_stem.weight") == pytest.approx(0.1 * 0.5**18)
        adapted = made("timm", {"pretrained": "timm"}, train="lora", layer_decay=0.5)
        rates = {name: adapted.lr_factor(name) for name, _ in adapted.named_parameters()}
        assert rates["network.blocks.6.0.conv_pw.lora_A.default.weight"] == 0.5
        assert rates["network.blocks.5.2.conv_pw.lora_B.default.weight"] == 0.25


class TestUsed:
    def test_parts_that_are_not_called_or_have_no_influence_are_told_apart(self) -> None:
        class Network(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.called, self.read, self.unused = (nn.Linear(2, 2, bias=False) for _ in range(3))
                self.eval()

            def forward(self, inputs: Tensor) -> Tensor:
                found: Tensor = self.called(inputs) @ self.read.weight
                return found

        network = Network()
        used = used_by(network, lambda: [network(torch.ones(1, 2))])
        assert used.modules == {"", "called"}
        assert used.parameters == {"called.weight", "read.weight"}
        assert not network.training and all(value.grad is None for value in network.parameters())


class TestAdapters:
    def test_the_product_of_an_adapter_is_added_as_the_paper_says(self) -> None:
        network = nn.Sequential(nn.Sequential(nn.Linear(5, 4)))
        weight = network[0][0].weight.detach().clone()
        add_adapters(network, Lora(rank=2, alpha=6, targets=("0.0",)), {"0.0"})
        adapted: Any = network[0][0]
        a, b = adapted.lora_A.default.weight, adapted.lora_B.default.weight
        assert (a.shape, b.shape) == ((2, 5), (4, 2))
        assert not b.any()
        nn.init.normal_(b)
        inputs = torch.randn(3, 5)
        wanted = inputs @ (weight + 6 / 2 * b @ a).T + adapted.bias
        assert torch.allclose(network(inputs), wanted, atol=1e-6)

    def test_a_vision_transformer_sends_megabytes_not_hundreds(self) -> None:
        network = timm.create_model("vit_base_patch16_224", num_classes=0)
        whole = sum(value.numel() for value in network.parameters())
        add_adapters(network, Lora(rank=8, targets=("qkv", "proj")), {name for name, _ in network.named_modules()})
        sent = sum(value.numel() for name, value in network.named_parameters() if "lora_" in name)
        assert whole * 4 > 330e6
        assert sent == 12 * 8 * ((768 + 3 * 768) + (768 + 768)) + 8 * (3 * 16 * 16 + 768)  # and the patches' layer
        assert sent * 4 < 2e6

    def test_targets_that_no_layer_has_are_refused_with_those_that_exist(self, models: Path) -> None:
        with pytest.raises(ConfigError, match=r"no layer for an adapter is called attn; some are \['conv_pw'"):
            made("timm", {"pretrained": "timm"}, train="lora", lora={"targets": ["conv_pw", "attn"]})

    def test_layers_whose_weights_are_read_without_calling_them_get_none(self, models: Path) -> None:
        encoder = made("open-clip-image", {"model": "clip"}, train="lora")
        assert all(".mlp." in name for name, _ in encoder.named_parameters())
        with pytest.raises(ConfigError, match="no layer for an adapter is called out_proj"):
            made("open-clip-image", {"model": "clip"}, train="lora", lora={"targets": ["out_proj"]})


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"train": "last-0-blocks"}, "train"),
            ({"train": "some"}, "train"),
            ({"train": "all", "lora": {}}, "the adapters are unused, because train is all"),
            ({"augment": {"flip": True}}, "features of a frozen network are computed once"),
            ({"lr_scale": 0.1}, "nothing of a frozen network is trained"),
            ({"pretrained": None, "model": "resnet18", "train": "lora"}, "there are no pre-trained weights"),
        ],
    )
    def test_what_does_not_fit_together_is_refused(self, options: dict[str, Any], said: str) -> None:
        with pytest.raises(ValueError, match=said):
            build("encoder", {"name": "timm", "pretrained": "timm", **options})

    @pytest.mark.parametrize("way", ["frozen", *WAYS])
    @pytest.mark.parametrize(
        ("name", "options", "said"),
        [
            ("transformers-text", {"model": "bert", "length": 65}, "cannot read values of the shape 2 x 65"),
            ("transformers-sound", {"model": "wav2vec2", "seconds": 0.0005}, "cannot read values of the shape 2 x 8"),
            ("transformers-sound", {"model": "ast", "seconds": 0.0005}, "the model cannot read 8 samples"),
            ("vision-transformer", {"model": "vision_transformer", "heads": 3}, "with 3 heads"),
        ],
    )
    def test_sizes_that_do_not_fit_the_network_are_an_error_before_a_value_is_read(
        self, name: str, options: dict[str, Any], said: str, way: str, models: Path
    ) -> None:
        with pytest.raises(ModelError, match=said):
            encoder = made(name, options, train=way)
            encoder.prepare(OTHER[str if "text" in name else Image.Image if "vision" in name else Sound])

    def test_a_clip_that_is_shorter_than_a_window_is_refused(self) -> None:
        with pytest.raises(ValueError, match="a clip has 16 samples, fewer than n_fft = "):
            build("encoder", {"name": "timm-spectrogram", "pretrained": "timm", "seconds": 0.001})

    def test_blocks_without_influence_are_an_error(self, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = Used(frozenset({"conv_stem"}), frozenset({"conv_stem.weight"}))
        monkeypatch.setattr("common.encoders.shared.trained_tower.used_by", lambda *_: first)
        with pytest.raises(ConfigError, match="train is last-1-block, but the features depend on no weight of these"):
            made("timm", {"pretrained": "timm"}, train="last-1-block")

    def test_more_blocks_than_there_are_is_an_error_with_their_number(self, models: Path) -> None:
        with pytest.raises(ConfigError, match="train is last-18-blocks, but the network has 17 blocks"):
            made("timm", {"pretrained": "timm"}, train="last-18-blocks")


@pytest.mark.usefixtures("models")
class TestTimm:
    def test_the_preprocessing_is_that_of_the_weights(self, models: Path) -> None:
        encoder = made("timm", {"pretrained": "timm"})
        plain = PICTURE.resize((40, 40), Image.Resampling.BILINEAR)
        values = (torch.from_numpy(np.array(plain)).permute(2, 0, 1) / 255 - 0.5) / 0.25
        network = _by_timm(models / "timm", pad_type="same")
        assert torch.allclose(_unscaled(encoder, PICTURE), _unit(network(values[None])), atol=2e-3)

    def test_the_borders_are_cut_off_as_timm_does(self, models: Path) -> None:
        encoder = made("timm", {"pretrained": "timm", "crop": True})
        config = {"input_size": (3, 40, 40), "interpolation": "bilinear", "crop_pct": 0.8,
                  "mean": (0.5,) * 3, "std": (0.25,) * 3}  # fmt: skip
        values = timm.data.create_transform(**config)(PICTURE)
        network = _by_timm(models / "timm", pad_type="same")
        assert torch.allclose(_unscaled(encoder, PICTURE), _unit(network(values[None])), atol=2e-3)

    def test_grey_pictures_pass_through_a_network_for_colours(self) -> None:
        encoder = made("timm", {"pretrained": "timm"}, train="all")
        grey = PICTURE.convert("L")
        assert torch.equal(encoder.prepare(grey), encoder.prepare(grey.convert("RGB")))

    def test_a_network_with_a_fixed_size_is_made_for_another_one(self) -> None:
        encoder = made("timm", {"model": "vit_tiny_patch16_224"}, size=64, train="all")
        assert encoder(encoder.prepare(PICTURE)[None]).shape == (1, 192)

    def test_random_weights_depend_on_the_seed(self) -> None:
        one, same = (made("timm", {"model": "mobilenetv2_050"}, train="all", size=32) for _ in range(2))
        with seeded(1, "weights"):
            other = build("encoder", {"name": "timm", "model": "mobilenetv2_050", "train": "all", "size": 32}).build()
        name = "network.conv_stem.weight"
        assert torch.equal(one.state_dict()[name], same.state_dict()[name])
        assert not torch.equal(one.state_dict()[name], other.state_dict()[name])
        assert any("running_mean" in key for key in one.state_dict())

    def test_pretrained_weights_draw_nothing_from_the_generator_of_the_model(self) -> None:
        def following(**more: Any) -> Tensor:
            with seeded(0, "weights"):
                build("encoder", {"name": "timm", "pretrained": "timm", **more}).build()
                return torch.rand(1)

        assert torch.equal(following(), following(train="all"))

    def test_an_unknown_architecture_is_an_error_with_similar_ones(self) -> None:
        with pytest.raises(ModelError, match="did you mean mobilenetv2_"):
            made("timm", {"model": "mobilenetv2"}, train="all")

    def test_weights_of_another_architecture_are_refused(self) -> None:
        with pytest.raises(ModelError, match="these are weights of mobilenetv2_050, not of resnet18"):
            made("timm", {"pretrained": "timm", "model": "resnet18"})

    @pytest.mark.parametrize(
        "arguments", [{"pretrained_cfg": "x"}, {"checkpoint_path": "a"}, {"act_layer": "a/b"}, {"norm": {"a": 1}}, [1]]
    )
    def test_arguments_that_could_name_files_are_refused(self, arguments: Any, models: Path, tmp_path: Path) -> None:
        shutil.copytree(models / "timm", tmp_path / "other")
        config = json.loads((tmp_path / "other" / "config.json").read_text())
        (tmp_path / "other" / "config.json").write_text(json.dumps({**config, "model_args": arguments}))
        with pytest.MonkeyPatch.context() as patch, pytest.raises(ModelError, match="model_args may only be"):
            patch.setenv("FEDMOSAIC_MODELS", str(tmp_path))
            made("timm", {"pretrained": "other"})

    @pytest.mark.parametrize(
        "preprocessing",
        [{"crop_pct": -1}, {"crop_pct": 1e-9}, {"crop_pct": float("nan")}, {"interpolation": "magic"},
         {"mean": [float("nan")] * 3}, {"std": [float("inf")] * 3}],
        ids=str,
    )  # fmt: skip
    def test_a_preprocessing_that_is_not_one_is_refused(
        self, preprocessing: Any, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(models / "timm", tmp_path / "other")
        config = json.loads((tmp_path / "other" / "config.json").read_text())
        config["pretrained_cfg"] |= preprocessing
        (tmp_path / "other" / "config.json").write_text(json.dumps(config))
        monkeypatch.setenv("FEDMOSAIC_MODELS", str(tmp_path))
        with pytest.raises(ModelError, match="the preprocessing of the weights cannot be used"):
            made("timm", {"pretrained": "other"})

    def test_pictures_that_are_too_small_are_an_error_that_says_so(self) -> None:
        with pytest.raises(ModelError, match="vit_tiny_patch16_224 cannot read pictures of 8 x 8 pixels"):
            made("timm", {"model": "vit_tiny_patch16_224"}, size=8, train="all")


def _by_timm(folder: Path, **options: Any) -> nn.Module:
    network: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0, **options)
    return network.eval()


def _unscaled(encoder: Any, raw: Raw) -> Tensor:
    features: Tensor = encoder(encoder.prepare(raw)[None])[0]
    return features / encoder.width**0.5


def _unit(features: Tensor) -> Tensor:
    return nn.functional.normalize(features[0].detach(), dim=-1)


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(
    ("name", "options", "long"),
    [
        ("transformers-text", {"model": "bert"}, {"length": 64}),
        ("transformers-sound", {"model": "wav2vec2"}, {"seconds": 5.0}),
    ],
)
def test_a_long_value_does_not_change_what_is_trained(name: str, options: Any, long: dict[str, Any]) -> None:
    short = made(name, options, train="all", **({"length": 8} if "length" in long else {"seconds": 0.5}))
    encoder = made(name, options, train="all", **long)
    assert {name for name, _ in encoder.named_parameters()} == {name for name, _ in short.named_parameters()}
    tower = encoder._tower
    assert tower.sample().numel() <= tower.blank().numel() / 4  # a gradient for the whole could need many gigabytes


class TestText:
    def test_the_folder_decides_how_tokens_are_pooled(self, models: Path, tmp_path: Path) -> None:
        (tmp_path / "sentences" / "1_Pooling").mkdir(parents=True)
        shutil.copytree(models / "bert", tmp_path / "sentences", dirs_exist_ok=True)
        pooling = '{"word_embedding_dimension": 24, "pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false}'
        (tmp_path / "sentences" / "1_Pooling" / "config.json").write_text(pooling)
        shutil.copytree(models / "bert", tmp_path / "bert")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FEDMOSAIC_MODELS", str(tmp_path))
            found = _text(made("transformers-text", {"model": "sentences", "length": 12}))
            assert torch.equal(found, _text(made("transformers-text", {"model": "bert", "length": 12}, pooling="mean")))
            assert not torch.equal(found, _text(made("transformers-text", {"model": "bert", "length": 12})))


def _text(encoder: Any) -> Tensor:
    features: Tensor = encoder(encoder.prepare(TEXT)[None])
    return features


class TestSounds:
    @pytest.mark.parametrize("model", ["wav2vec2", "whisper"])
    def test_padding_does_not_change_the_features(self, model: str, models: Path) -> None:
        short, long = (
            made("transformers-sound", {"model": model, "seconds": seconds, "parts": 2}, train="all").eval()
            for seconds in (0.5, 0.9)
        )
        recording = RAWS["a recording"]
        one, other = (encoder(encoder.prepare(recording)[None]) for encoder in (short, long))
        assert torch.allclose(one, other, atol=1e-4 if model == "wav2vec2" else 1e-2)

    def test_weights_may_lack_a_tensor_that_is_never_read(
        self, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recording, options = RAWS["a recording"], {"model": "wav2vec2", "seconds": 0.5}
        whole = made("transformers-sound", options)
        wanted = whole(whole.prepare(recording)[None])
        shutil.copytree(models / "wav2vec2", tmp_path / "wav2vec2")
        weights = load_file(models / "wav2vec2" / "model.safetensors")
        del weights["masked_spec_embed"]
        save_file(weights, tmp_path / "wav2vec2" / "model.safetensors", {"format": "pt"})
        monkeypatch.setenv("FEDMOSAIC_MODELS", str(tmp_path))
        lacking = made("transformers-sound", options)
        assert torch.equal(lacking(lacking.prepare(recording)[None]), wanted)
