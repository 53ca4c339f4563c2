"""Pre-training from nothing: a few steps, and the folders are what the loaders read."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

from client.completion.base import Request
from common.config.component import build
from common.datasets.birds.captions import caption, description
from common.datasets.birds.drawing import picture, random_scene
from common.datasets.birds.species import APART, distance, public_bird, species
from common.datasets.birds_mini import BirdsMini
from common.errors import ConfigError
from common.seeding import rng
from deploy.pretrain.command import pretrain
from deploy.pretrain.corpus import make_corpus, said_of
from deploy.pretrain.tokenizer import UNKNOWN, make_tokenizer


def test_the_species_are_told_apart_by_traits_and_their_names_say_some_of_them() -> None:
    birds = species()
    assert len({bird.name for bird in birds}) == len(birds) == 48
    assert all(distance(one, other) >= APART for i, one in enumerate(birds) for other in birds[:i])
    for bird in birds:
        *said, kind = bird.name.lower().split()
        assert kind == bird.kind
        assert len(said) == 3
        assert all(bird.traits[part] == colour for colour, part in (word.split("-") for word in said))


def test_no_bird_of_the_public_corpus_is_of_a_species() -> None:
    corpus = make_corpus(300, 7)
    assert min(distance(bird, own) for bird in corpus.birds for own in species()) >= APART
    assert len({str(sorted(bird.traits.items())) for bird in corpus.birds}) == 300


def test_pictures_and_captions_of_a_species_vary_and_the_same_draw_gives_the_same() -> None:
    bird = species()[0]
    scenes = [random_scene(rng(1, "scene", i)) for i in range(20)]
    pictures = [picture(bird, scene) for scene in scenes]
    assert len({image.tobytes() for image in pictures}) == 20
    assert np.array_equal(picture(bird, scenes[3]), pictures[3])
    assert len({caption(bird, scene, rng(1, "words", i)) for i, scene in enumerate(scenes)}) > 15


def test_a_caption_says_nothing_that_the_bird_has_not() -> None:
    draw = rng(3, "words")
    bird = public_bird(draw)
    said = {description(bird, random_scene(draw), draw) for _ in range(200)}
    forked = any("forked" in text or "split" in text for text in said)
    assert forked == (bird.traits["tail"] == "forked")
    assert any("crest" in text for text in said) == (bird.traits["crest"] == "crested")


def test_the_tokenizer_knows_every_word_of_the_captions() -> None:
    tokenizer = make_tokenizer()
    corpus = make_corpus(100, 1)
    for bird, scene in zip(corpus.birds, corpus.scenes, strict=True):
        draw = rng(1, "said", bird.name)
        words = said_of(bird, scene, draw).split()
        unknown = [word for word in words if tokenizer.convert_tokens_to_ids(word) == tokenizer.unk_token_id]
        assert len(unknown) <= 1  # the invented name
    assert tokenizer.decode(tokenizer("A photo of Foo, a kind of FINCH.").input_ids[1:-1]) == (
        f"a photo of {UNKNOWN} a kind of finch"
    )


def test_birds_mini_is_the_same_every_time_and_its_parts_share_no_picture() -> None:
    train, test = (BirdsMini(train_per_class=2, test_per_class=1).examples(part, 1) for part in ("train", "test"))
    assert len(train) == 96 and len(test) == 48
    images = [example.media["image"].read() for example in train + test]
    assert len(set(images)) == len(images)
    again = BirdsMini(train_per_class=3).examples("train", 9)
    kept = {example.id: example.media["text"].read() for example in again}
    assert all(kept[example.id] == example.media["text"].read() for example in train)


@pytest.mark.slow
def test_a_few_steps_give_folders_that_the_loaders_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDMOSAIC_MODELS", str(tmp_path))
    threads = torch.get_num_threads()
    pretrain("birds-coca", tmp_path / "coca", 1, 0.0001)
    encoder = build("encoder", {"name": "open-clip-image", "model": "coca"}).build()
    assert encoder.prepare(Image.new("RGB", (64, 64))).isfinite().all()
    pretrain("birds-vit", tmp_path / "vit", 1, 0.0001)
    encoder = build("encoder", {"name": "vision-transformer", "model": "vit", "heads": 4}).build()
    assert encoder.prepare(Image.new("RGB", (64, 64))).isfinite().all()
    pretrain("birds-diffusion", tmp_path / "diffusion", 1, 0.0001)
    completer = build("completer", {"name": "diffusion", "source": "text", "model": "diffusion", "steps": 1})
    (made,) = completer.load("image", "cpu").generate([Request("a red crown", "a red crown", [1])])
    assert made[0].size == (64, 64)
    with pytest.raises(ConfigError, match="exists already"):
        pretrain("birds-coca", tmp_path / "coca", 1, 0.0001)
    torch.set_num_threads(threads)


def test_the_embedded_models_are_small_and_in_half_precision() -> None:
    folder = ROOT / "deploy" / "pretrain" / "weights"
    assert {path.name for path in folder.iterdir()} == {"birds-coca", "birds-diffusion", "birds-vit"}
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 12_000_000
