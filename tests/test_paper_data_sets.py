"""The data sets of the FedCMI paper, from small folders in their original layouts, with real video files."""

import json
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from conftest import ROOT, experiment
from PIL import Image as Picture
from test_shards import fingerprint

from client.site import Site
from common.config.component import build
from common.config.experiment import Experiment
from common.config.reading import read
from common.data.shard import Shard
from common.datasets.ave import CLASSES
from common.encoders.image import scaled
from common.errors import ConfigError, DataError
from common.media.values import Sound, encode_sound
from common.media.values import read as read_media
from common.media.video import read_audio, read_frames, spread
from common.split.make import make_shards
from deploy.engines.in_process import InProcessGrid
from server.record.run_folder import RunFolder
from server.rounds.federation import Federation

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
FPS, RATE, HERTZ = 8, 22050, 440


def write_video(path: Path, codec: str, colours: Sequence[tuple[int, int, int]], sound: bool = True) -> None:
    """A second of each colour, 48 x 32 with a black margin left and right, and a tone of 440 Hz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=FPS)
        video.width, video.height, video.pix_fmt, video.bit_rate = 48, 32, "yuv420p", 2_000_000
        audio = (
            container.add_stream("mp3" if path.suffix == ".flv" else "aac", rate=RATE, layout="mono") if sound else None
        )
        for index in range(FPS * len(colours)):
            pixels = np.zeros((32, 48, 3), np.uint8)
            pixels[:, 8:40] = colours[index // FPS]
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode())
        if audio is not None:
            tone = 0.5 * np.sin(2 * np.pi * HERTZ / RATE * np.arange(RATE * len(colours)))
            frame = av.AudioFrame.from_ndarray(tone.astype(np.float32)[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
            container.mux(audio.encode(frame))
            container.mux(audio.encode())


def colours_of(frames: np.ndarray[Any, Any]) -> list[tuple[int, ...]]:
    """The nearest pure colour of each frame, from its middle."""
    half = frames.shape[1] // 2
    return [tuple(255 * int(value > 127) for value in frame[half, half]) for frame in frames]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """short.flv (red, green), short.mp4 (red, green, blue), long.mp4 (seven seconds), silent.mp4."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "short.flv", "flv", [RED, GREEN])
    write_video(folder / "short.mp4", "libx264", [RED, GREEN, BLUE])
    write_video(folder / "long.mp4", "libx264", [RED, WHITE, GREEN, WHITE, BLUE, WHITE, RED])
    write_video(folder / "silent.mp4", "libx264", [RED], sound=False)
    return folder


def paper(data_set: dict[str, Any], encoders: dict[str, Any], **changes: Any) -> Experiment:
    return experiment(
        data__set=data_set,
        model__encoders=encoders,
        data__limit=None,
        data__test_limit=None,
        data__missing={},
        **changes,
    )


AUDIO_VIDEO = {"audio": "spectrogram", "video": {"name": "frames", "size": 16, "width": 8}}


def lines_of(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().split("\n") if line]


class TestVideo:
    def test_each_frame_is_the_first_at_or_after_its_time(self, videos: Path) -> None:
        frames = read_frames(videos / "short.mp4", [0, 0.9, 1.0, 2.5], 14)
        assert frames.shape == (4, 14, 14, 3)
        assert frames.dtype == np.uint8
        assert colours_of(frames) == [RED, GREEN, GREEN, BLUE]

    def test_a_short_clip_repeats_its_last_frame(self, videos: Path) -> None:
        assert colours_of(read_frames(videos / "short.flv", spread(1.0, 3, 3), 14)) == [RED, GREEN, GREEN]

    def test_frames_are_spread_over_those_of_the_clip(self, videos: Path) -> None:
        assert spread(1.0, 3, 3) == [0, 1, 2]
        assert spread(1.0, 10, 4) == [0, 2, 4, 6]
        assert spread(2.0, 1, 4) == [0, 0.5, 1.0, 1.5]
        assert colours_of(read_frames(videos / "long.mp4", spread(1.0, 10, 4), 14)) == [RED, GREEN, BLUE, RED]

    def test_the_middle_is_cut_out_at_seven_eighths_of_the_short_side(self, videos: Path) -> None:
        # 48 x 32 becomes 96 x 64 and 56 x 56 of it stay: columns 20 to 76, all within the colour (16 to 80).
        frame = read_frames(videos / "short.mp4", [0], 56)[0]
        assert (frame[..., 0] > 200).all()
        assert (frame[..., 1:] < 60).all()

    @pytest.mark.parametrize("name", ["short.flv", "short.mp4"])
    def test_audio_is_resampled_to_mono(self, name: str, videos: Path) -> None:
        samples = read_audio(videos / name, 16000)
        assert samples.dtype == np.float32
        assert abs(len(samples) / 16000 - (2 if name.endswith("flv") else 3)) < 0.1
        assert np.abs(np.fft.rfft(samples[4000:20000])).argmax() == HERTZ
        assert np.sqrt(2 * np.mean(samples[4000:20000] ** 2)) == pytest.approx(0.5, abs=0.05)

    @pytest.mark.parametrize("content", [b"", b"neither sound nor picture" * 40, "cut", None])
    def test_what_cannot_be_decoded_is_a_value_error_with_the_name(
        self, content: bytes | str | None, videos: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / "broken.mp4"
        if content is not None:
            path.write_bytes((videos / "short.mp4").read_bytes()[:900] if isinstance(content, str) else content)
        with pytest.raises(ValueError, match=r"broken\.mp4: "):
            read_frames(path, [0], 14)
        with pytest.raises(ValueError, match=r"broken\.mp4: "):
            read_audio(path, 16000)

    def test_a_silent_video_has_frames_only(self, videos: Path) -> None:
        assert len(read_frames(videos / "silent.mp4", [0], 14)) == 1
        with pytest.raises(ValueError, match=r"silent\.mp4: no audio track"):
            read_audio(videos / "silent.mp4", 16000)


CLIPS = [f"{actor}_{sentence}_{emotion}_XX" for actor in (1001, 1002, 1003) for sentence in ("DFA", "IEO")
         for emotion in ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")]  # fmt: skip


@pytest.fixture(scope="module")
def crema(tmp_path_factory: pytest.TempPathFactory, videos: Path) -> Path:
    """36 clips of 3 actors, a broken video in each part, and one clip that has no video at all."""
    root = tmp_path_factory.mktemp("crema") / "CREMA-D"
    for kind in ("AudioWAV", "VideoFlash"):
        (root / kind).mkdir(parents=True)
    for index, name in enumerate(CLIPS):
        tone = np.sin(np.arange(4000) * (index + 1) / 50).astype(np.float32)
        (root / "AudioWAV" / f"{name}.wav").write_bytes(encode_sound(tone, 16000))
        (root / "VideoFlash" / f"{name}.flv").write_bytes((videos / "short.flv").read_bytes())
    (root / "VideoFlash" / f"{CLIPS[0]}.flv").write_bytes(b"FLV, or so it says")
    (root / "VideoFlash" / f"{CLIPS[-1]}.flv").write_bytes(b"")
    (root / "VideoFlash" / f"{CLIPS[1]}.flv").unlink()
    for part, names in (("train", CLIPS[:30]), ("test", CLIPS[30:])):
        (root / f"{part}.csv").write_text("".join(f"{name},{name.split('_')[2]}\n" for name in names))
    return root


class TestCremaD:
    def test_shards_have_sound_frames_and_what_was_unreadable(self, crema: Path, tmp_path: Path) -> None:
        chosen = paper({"name": "crema-d", "folder": str(crema), "side": 16}, AUDIO_VIDEO)
        made = make_shards(chosen, tmp_path / "shards")
        make_shards(chosen, tmp_path / "again")
        assert fingerprint(tmp_path / "shards") == fingerprint(tmp_path / "again")
        lines = {line["id"]: (folder, line) for folder in made for line in lines_of(folder)}
        assert sorted(lines) == sorted(CLIPS[:30])
        folder, line = lines[CLIPS[2]]
        assert line["label"] == "FEA"
        audio, video = folder / line["audio_file_name"], folder / line["video_file_name"]
        assert audio.read_bytes() == (crema / "AudioWAV" / f"{CLIPS[2]}.wav").read_bytes()
        assert np.load(video).dtype == np.uint8
        frames = read_media(video)
        assert isinstance(frames, np.ndarray)
        assert colours_of(frames) == [RED, GREEN, GREEN]
        for broken in CLIPS[:2]:
            assert set(lines[broken][1]) == {"id", "label", "audio_file_name"}
        infos = [json.loads((folder / "shard.json").read_text()) for folder in made]
        assert sum(info["made"].get("unreadable", {}).get("video", 0) for info in infos) == 2
        test = Shard.open(tmp_path / "shards" / "test")
        assert [record.id for record in test.records] == CLIPS[30:]
        assert test.info.made["unreadable"] == {"video": 1}
        assert test.info.made["data_set"]["split"] == "lists"
        assert str(crema) not in (tmp_path / "shards" / "test" / "shard.json").read_text()

    def test_a_federation_trains_on_them(self, crema: Path, tmp_path: Path) -> None:
        chosen = paper({"name": "crema-d", "folder": str(crema), "side": 16}, AUDIO_VIDEO)
        made = make_shards(chosen, tmp_path / "shards")
        grid = InProcessGrid([Site(folder) for folder in made])
        Federation(chosen, grid, tmp_path / "shards" / "test", RunFolder(tmp_path / "run", chosen)).run()
        last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
        assert set(last["test"]) == {"audio", "video", "audio+video"}
        assert set(last["losses"]) == {"fused", "unimodal", "infiltration", "proximal"}

    def test_actors_are_natural_clients(self, crema: Path, tmp_path: Path) -> None:
        chosen = paper({"name": "crema-d", "folder": str(crema), "side": 16}, AUDIO_VIDEO,
                       data__partition={"name": "natural"}, data__clients=3)  # fmt: skip
        actors = [{line["id"][:4] for line in lines_of(folder)} for folder in make_shards(chosen, tmp_path / "shards")]
        assert sorted(map(sorted, actors)) == [["1001"], ["1002"], ["1003"]]

    def test_a_seeded_split_holds_out_a_tenth_whatever_the_seed(self, crema: Path) -> None:
        source = build("data set", {"name": "crema-d", "folder": str(crema), "split": "seeded"})
        train, test = ([example.id for example in source.examples(part, seed=1)] for part in ("train", "test"))
        assert sorted(train + test) == sorted(CLIPS)
        assert len(test) == 4
        assert test == [example.id for example in source.examples("test", seed=2)]

    def test_a_clip_of_both_lists_is_a_test_clip(self, crema: Path, tmp_path: Path) -> None:
        (tmp_path / "AudioWAV").symlink_to(crema / "AudioWAV")
        (tmp_path / "train.csv").write_text(f"{CLIPS[0]},ANG\n{CLIPS[1]},DIS\n")
        (tmp_path / "test.csv").write_text(f"{CLIPS[1]},DIS\n")
        source = build("data set", {"name": "crema-d", "folder": str(tmp_path)})
        assert [example.id for example in source.examples("train", seed=1)] == [CLIPS[0]]

    @pytest.mark.parametrize(
        ("name", "content", "expected"),
        [
            ("train.csv", None, r"train\.csv does not exist: put the list there, or set split to 'seeded'"),
            ("test.csv", "1001_DFA_ANG_XX,SAD\n", r"test\.csv: the label of '1001_DFA_ANG_XX,SAD' differs from"),
            ("test.csv", "../../etc/passwd,ANG\n", "is not the name of a clip"),
            ("test.csv", "", r"test\.csv has no clips"),
            (f"AudioWAV/{CLIPS[0]}.wav", "version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ],
    )
    def test_mistakes_name_the_file(self, name: str, content: str | None, expected: str, tmp_path: Path) -> None:
        (tmp_path / "AudioWAV").mkdir()
        for part, clip in (("train", CLIPS[0]), ("test", CLIPS[1])):
            (tmp_path / f"{part}.csv").write_text(f"{clip},{clip.split('_')[2]}\n")
        (tmp_path / name).unlink(missing_ok=True)
        if content is not None:
            (tmp_path / name).write_text(content)
        source = build("data set", {"name": "crema-d", "folder": str(tmp_path)})
        with pytest.raises(DataError, match=expected):
            source.examples("train", seed=1)

    def test_an_empty_folder_is_named(self, tmp_path: Path) -> None:
        source = build("data set", {"name": "crema-d", "folder": str(tmp_path), "split": "seeded"})
        with pytest.raises(DataError, match=f"no clips such as .*{tmp_path}"):
            source.examples("train", seed=1)

    def test_when_no_video_can_be_decoded_no_shards_are_made(self, crema: Path, tmp_path: Path) -> None:
        root = tmp_path / "CREMA-D"
        root.mkdir()
        for name in ("AudioWAV", "train.csv", "test.csv"):
            (root / name).symlink_to(crema / name)
        chosen = paper({"name": "crema-d", "folder": str(root)}, AUDIO_VIDEO)
        with pytest.raises(
            DataError, match=r"none of 36 video values .* can be read; the first reason: .*\.flv: No such file"
        ):
            make_shards(chosen, tmp_path / "shards")
        assert not (tmp_path / "shards").exists()

    def test_without_pyav_the_remedy_is_said(self, crema: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "av", None)
        source = build("data set", {"name": "crema-d", "folder": str(crema)})
        with pytest.raises(DataError, match=r"needs PyAV, which is not installed: pip install 'fedmosaic\[video\]'"):
            source.examples("train", seed=1)


HEADER = "Category&VideoID&Quality&StartTime&EndTime"
EVENTS = [f"{label}&{video}&good&0&10" for label in ("Bark", "Violin, fiddle") for video in
          (f"{label[0]}-{index}_x" for index in range(6))]  # fmt: skip


@pytest.fixture(scope="module")
def ave(tmp_path_factory: pytest.TempPathFactory, videos: Path) -> Path:
    """12 videos, of which one is heard in both classes and one is broken; a test video is in the training list too."""
    root = tmp_path_factory.mktemp("ave") / "AVE_Dataset"
    (root / "AVE").mkdir(parents=True)
    for event in EVENTS:
        (root / "AVE" / f"{event.split('&')[1]}.mp4").write_bytes((videos / "long.mp4").read_bytes())
    (root / "AVE" / "B-0_x.mp4").write_bytes(b"no video")
    (root / "AVE" / "B-1_x.mp4").write_bytes((videos / "silent.mp4").read_bytes())
    twice = "Violin, fiddle&B-2_x&good&4&6"
    train = [*EVENTS[:5], *EVENTS[6:11], twice, EVENTS[11]]
    (root / "Annotations.txt").write_text("\n".join([HEADER, *EVENTS, twice]))
    (root / "trainSet.txt").write_text("\n".join(train))
    (root / "valSet.txt").write_text("")
    (root / "testSet.txt").write_text("\n".join([EVENTS[5], EVENTS[11]]) + "\n")
    return root


class TestAve:
    def test_shards(self, ave: Path, tmp_path: Path) -> None:
        chosen = paper({"name": "ave", "folder": str(ave), "side": 16}, AUDIO_VIDEO)
        made = make_shards(chosen, tmp_path / "shards")
        lines = {line["id"]: (folder, line) for folder in made for line in lines_of(folder)}
        test = [record.id for record in Shard.open(tmp_path / "shards" / "test").records]
        assert test == ["B-5_x", "V-5_x"]
        # B-0_x is broken and left out, V-5_x is a test video, B-2_x has two events.
        assert sorted(lines) == sorted(["B-1_x", "B-2_x", "B-2_x.2", "B-3_x", "B-4_x", *(f"V-{i}_x" for i in range(5))])
        assert set(lines["B-1_x"][1]) == {"id", "label", "video_file_name"}
        assert [lines[name][1]["label"] for name in ("B-2_x", "B-2_x.2")] == ["Bark", "Violin, fiddle"]
        folder, line = lines["V-0_x"]
        sound, frames = read_media(folder / line["audio_file_name"]), read_media(folder / line["video_file_name"])
        assert isinstance(sound, Sound)
        assert (sound.rate, sound.samples.shape[1]) == (16000, 1)
        assert np.abs(np.fft.rfft(sound.samples[4000:20000, 0])).argmax() == HERTZ
        assert isinstance(frames, np.ndarray)
        assert colours_of(frames) == [RED, GREEN, BLUE, RED]
        infos = [json.loads((folder / "shard.json").read_text())["made"].get("unreadable", {}) for folder in made]
        assert [sum(info.get(m, 0) for info in infos) for m in ("audio", "video")] == [2, 1]

    def test_there_are_28_classes(self) -> None:
        assert len(CLASSES) == 28
        assert sorted(set(CLASSES)) == CLASSES

    @pytest.mark.parametrize(
        ("name", "content", "expected"),
        [
            ("trainSet.txt", None, r"trainSet\.txt cannot be read: No such file"),
            ("testSet.txt", HEADER, r"testSet\.txt has no events"),
            ("testSet.txt", "Bark&x&good&0", r"testSet\.txt: 'Bark&x&good&0' is not Category&"),
            ("testSet.txt", "Smell&x&good&0&10", "28 categories"),
            ("testSet.txt", "Bark&../x&good&0&10", "is not Category&"),
            ("trainSet.txt", b"\xff\xfe\xff", r"trainSet\.txt cannot be read: it is not UTF-8"),
        ],
    )
    def test_mistakes_name_the_file(
        self, name: str, content: str | bytes | None, expected: str, tmp_path: Path
    ) -> None:
        (tmp_path / "AVE").mkdir()
        for which in ("trainSet.txt", "testSet.txt"):
            (tmp_path / which).write_text(EVENTS[0])
        (tmp_path / name).unlink()
        if content is not None:
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        source = build("data set", {"name": "ave", "folder": str(tmp_path)})
        with pytest.raises(DataError, match=expected):
            source.examples("train", seed=1)

    def test_a_folder_without_videos_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=f"no folder {tmp_path}/AVE"):
            build("data set", {"name": "ave", "folder": str(tmp_path)}).examples("test", seed=1)


COLUMNS = [
    "event_name",
    "tweet_id",
    "image_id",
    "tweet_text",
    "image",
    "label",
    "label_text",
    "label_image",
    "label_text_image",
]


def write_crisis(root: Path, columns: Sequence[str] = COLUMNS) -> Path:
    """20 training and 4 test tweets of two disasters; a quarter of the texts and pictures are not of one opinion."""
    lists = root / "crisismmd_datasplit_all"
    lists.mkdir(parents=True)
    for part, numbers in (("train", range(20)), ("dev", range(50, 52)), ("test", range(30, 34))):
        rows = [columns]
        for number in numbers:
            event = ("hurricane_irma", "mexico_earthquake")[number % 2]
            label = ("informative", "not_informative")[number // 2 % 2]
            image = f"data_image/{event}/9_9_2017/{number}_0.jpg"
            (root / image).parent.mkdir(parents=True, exist_ok=True)
            Picture.new("RGB", (20, 12), (number, 0, 0)).save(root / image)
            text = f'Tweet {number} says "help and \u2028 more'
            other = "informative" if number % 4 == 3 else label
            values = [event, str(number), f"{number}_0", text, image, label, label, other, "Positive"]
            rows.append([dict(zip(COLUMNS, values, strict=True))[column] for column in columns])
        (lists / f"task_informative_text_img_{part}.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    return root


IMAGE_TEXT = {"image": {"name": "image", "size": 8, "channels": 3, "width": 8}, "text": {"name": "text", "width": 8}}


class TestCrisisMmd:
    def test_shards(self, tmp_path: Path) -> None:
        root = write_crisis(tmp_path / "CrisisMMD_v2.0")
        (root / "data_image/hurricane_irma/9_9_2017/0_0.jpg").unlink()
        source = build("data set", {"name": "crisis-mmd", "folder": str(root)})
        train, test = (source.examples(part, seed=1) for part in ("train", "test"))
        assert [len(train), len(test)] == [20, 4]
        assert not {example.id for example in train} & {example.id for example in test}
        assert {example.group for example in train} == {"hurricane_irma", "mexico_earthquake"}
        assert train[3].media["text"].read().decode() == 'Tweet 3 says "help and \u2028 more'
        chosen = paper({"name": "crisis-mmd", "folder": str(root)}, IMAGE_TEXT, data__partition={"name": "natural"})
        make_shards(chosen, tmp_path / "again")
        made = make_shards(chosen, tmp_path / "shards")
        assert fingerprint(tmp_path / "shards") == fingerprint(tmp_path / "again")
        lines = {line["id"]: (folder, line) for folder in made for line in lines_of(folder)}
        assert len(lines) == 20
        assert set(lines["0_0"][1]) == {"id", "label", "text"}
        folder, line = lines["6_0"]
        assert line["label"] == "not_informative"
        picture = root / "data_image/hurricane_irma/9_9_2017/6_0.jpg"
        assert (folder / line["image_file_name"]).read_bytes() == picture.read_bytes()

    def test_label_columns_and_agreement(self, tmp_path: Path) -> None:
        root = write_crisis(tmp_path / "x")
        labels = {}
        for column in ("label", "label_text", "label_image"):
            source = build("data set", {"name": "crisis-mmd", "folder": str(root), "label": column})
            labels[column] = [example.label for example in source.examples("train", seed=1)]
        assert labels["label"] == labels["label_text"] != labels["label_image"]
        agreed = build("data set", {"name": "crisis-mmd", "folder": str(root), "agreed": True})
        assert len(agreed.examples("train", seed=1)) == 15

    def test_lists_beside_the_pictures_are_found(self, tmp_path: Path) -> None:
        write_crisis(tmp_path / "CrisisMMD_v2.0")
        (tmp_path / "crisismmd_datasplit_all").mkdir()
        (tmp_path / "CrisisMMD_v2.0/crisismmd_datasplit_all").rename(tmp_path / "crisismmd_datasplit_all" / LISTS)
        source = build("data set", {"name": "crisis-mmd", "folder": str(tmp_path)})
        assert source.examples("test", seed=1)[0].media["image"].read()

    def test_mistakes_name_the_file(self, tmp_path: Path) -> None:
        def train(folder: Path) -> None:
            build("data set", {"name": "crisis-mmd", "folder": str(folder)}).examples("train", seed=1)

        with pytest.raises(DataError, match=r"crisis-mmd: no task_informative_text_img_t\*\.tsv in "):
            train(tmp_path)
        with pytest.raises(DataError, match=r"text_img_train\.tsv has no column image_id, label"):
            train(write_crisis(tmp_path / "a", ["event_name", "tweet_text", "image"]))
        path = write_crisis(tmp_path / "b") / LISTS / "task_informative_text_img_train.tsv"
        path.write_text(path.read_text().replace("\tnot_informative\tnot", "\tperhaps\tnot", 1))
        with pytest.raises(DataError, match=r"train\.tsv, example 3: the line needs 9 columns with informative or not"):
            train(tmp_path / "b")
        path.with_name("task_informative_text_img_test.tsv").unlink()
        path.write_text("")
        with pytest.raises(DataError, match=r"train\.tsv has no column event_name"):
            train(tmp_path / "b")


LISTS = "crisismmd_datasplit_all"


class TestFrames:
    def test_shapes_values_and_lengths(self) -> None:
        encoder = build("encoder", {"name": "frames", "frames": 3, "size": 8, "width": 5}).build()
        frames = np.zeros((2, 10, 12, 3), np.float32)
        frames[1] = 255
        one = encoder.prepare(frames)
        assert one.shape == encoder.blank().shape == (3, 3, 8, 8)
        assert [one[t].unique().item() for t in range(3)] == [0, 255, 255]
        assert torch.equal(encoder.prepare(np.concatenate([frames] * 4)), encoder.prepare(np.concatenate([frames] * 2)))
        assert (encoder.blank() == 0).all()
        assert encoder(torch.stack([one, encoder.blank()])).shape == (2, 5)

    def test_features_are_the_mean_over_time(self) -> None:
        encoder = build("encoder", {"name": "frames", "frames": 4, "size": 16}).build().eval()
        raw = np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 3)).astype(np.float32)
        inputs = torch.stack([encoder.prepare(raw), encoder.prepare(raw[::-1])])
        features = encoder(inputs)
        assert torch.equal(features, encoder(inputs))
        assert torch.allclose(features[0], features[1], atol=1e-5)
        assert torch.allclose(
            features[0], torch.stack([encoder.net(scaled(frame[None]))[0] for frame in inputs[0]]).mean(0), atol=1e-5
        )

    @pytest.mark.parametrize("shape", [(8, 8, 3), (2, 8, 8), (2, 8, 8, 1)])
    def test_other_arrays_are_refused(self, shape: tuple[int, ...]) -> None:
        encoder = build("encoder", {"name": "frames"}).build()
        with pytest.raises(ValueError, match=r"frames \[T, H, W, 3\] are needed, not an array"):
            encoder.prepare(np.zeros(shape, np.float32))
        with pytest.raises(ValueError, match="empty"):
            encoder.prepare(np.zeros((0, 8, 8, 3), np.float32))


class TestDenseNet:
    @pytest.mark.parametrize("channels", [1, 3])
    def test_features_and_a_single_example(self, channels: int) -> None:
        options = {"name": "image", "size": 32, "channels": channels, "backbone": "densenet121", "width": 10}
        encoder = build("encoder", options).build().train()
        for rows in (2, 1):
            features = encoder(torch.randint(256, (rows, channels, 32, 32)).byte())
            assert features.shape == (rows, 10)
            assert features.isfinite().all()
        assert encoder.net.net.features.training

    @pytest.mark.parametrize(
        "options",
        [{"name": "image"}, {"name": "frames"}, {"name": "spectrogram", "n_mels": 16}],
        ids=lambda o: o["name"],
    )
    def test_pictures_that_are_too_small_are_a_mistake_of_the_config(self, options: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match="densenet121 needs 32 x 32 or larger, not"):
            experiment(model__encoders={"audio": {**options, "backbone": "densenet121"}})


class TestPaperSettings:
    @pytest.mark.parametrize(("name", "frames", "columns"), [("crema-d", 3, 299), ("ave", 4, 1004)])
    def test_configs(self, name: str, frames: int, columns: int) -> None:
        chosen = read(ROOT / "configs" / f"{name}-fedcmi.yaml")
        audio, video = (build("encoder", chosen.model.encoders[m]) for m in ("audio", "video"))
        assert audio.shape == (257, columns)
        assert (video.frames, video.size) == (frames, 224)
        assert {audio.backbone, video.backbone} == {"resnet18"}
        assert chosen.data.set is not None
        assert (chosen.data.set["frames"], chosen.data.set["side"]) == (frames, 224)
        assert (chosen.data.clients, chosen.federation.sample) == (20, 5)
        assert (chosen.train.epochs, chosen.train.batch_size, chosen.train.lr) == (10, 64, 0.001)
        assert (chosen.train.momentum, chosen.train.weight_decay) == (0.9, 0.0001)

    def test_config_of_crisis_mmd(self) -> None:
        chosen = read(ROOT / "configs" / "crisis-mmd-fedcmi.yaml")
        image, text = (build("encoder", chosen.model.encoders[m]) for m in ("image", "text"))
        assert (image.backbone, image.size, image.channels) == ("densenet121", 224, 3)
        assert image.width == text.width == 100
        assert (chosen.data.clients, chosen.federation.sample) == (20, 5)

    def test_the_spectrogram_is_the_formula(self) -> None:
        options = {"name": "spectrogram", "rate": 16000, "seconds": 3.0, "n_fft": 512, "hop": 159}
        wave = np.random.default_rng(0).normal(0, 0.1, 48000)
        found = build("encoder", options).build().prepare(Sound(wave.astype(np.float32)[:, None], 16000))
        window = np.hanning(513)[:512]
        starts = range(0, 48000 - 512 + 1, 159)
        log = np.log(np.abs([np.fft.rfft(wave[start : start + 512] * window) for start in starts]).T + 1e-7)
        expected = (log - log.mean()) / log.std()
        assert found.shape == (1, 257, 299)
        assert np.abs(found[0].numpy() - expected).max() < 5e-3
        assert np.abs(found[0].numpy() - expected).mean() < 1e-4
