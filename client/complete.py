"""Completes a shard: frozen models generate the missing values of its examples, once, before any training.

Only training data are completed, because the label may enter a prompt. The generated values stay in the shard's folder,
together with the options and models that made them.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from client.completion.base import CompleterOptions, Generator, Request
from common.config.component import Reference, build
from common.data.completed import LINES, RECIPE, folder_of, read_lines, to_complete
from common.data.shard import Record, Shard
from common.data.sites import TEST
from common.errors import ShardError
from common.frozen.open_clip_models import OpenClip, load_open_clip
from common.media.values import Raw, Value
from common.modality import Modality
from common.seeding import derive
from common.tasks.labels import names_in


@dataclass
class Count:
    """The result for one modality of a shard: the number of values that were made now, made before, rejected because of
    their score, or failed, and the scores."""

    made: int = 0
    before: int = 0
    rejected: int = 0
    failed: int = 0
    scores: list[float] = field(default_factory=list)


Progress = Callable[[Modality, int, int], None]
"""Callback with a modality, the number of its finished values, and the number of all values to complete."""


def complete(
    shard: Shard,
    completion: Mapping[Modality, Reference],
    device: str = "cpu",
    progress: Progress = lambda *_: None,
) -> dict[Modality, Count]:
    """Generate every missing value that can be generated. Earlier values are kept, so an interrupted completion
    continues where it stopped.

    Raises ShardError for a test shard, and ModelError.
    """
    if shard.info.made.get("part") == TEST:
        raise ShardError(f"shard {shard.folder}: test data are never completed, because the label may enter a prompt")
    return {m: _Completion(shard, m, completion[m], device).run(progress) for m in sorted(completion)}


class _Completion:
    """The completion of one modality of a shard."""

    def __init__(self, shard: Shard, modality: Modality, reference: Reference, device: str) -> None:
        self.shard, self.modality, self.reference, self.device = shard, modality, reference, device
        self.options: CompleterOptions = build("completer", reference)
        self.folder = folder_of(shard, modality, reference)

    def run(self, progress: Progress) -> Count:
        """Generate the values that do not exist yet."""
        wanted = to_complete(self.shard, self.modality, self.options.source)
        known = read_lines(self.folder)
        missing = [record for record in wanted if record.id not in known]
        count = Count(before=len(wanted) - len(missing))
        batches = self._written(missing)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / RECIPE).write_text(json.dumps(self.reference, indent=1) + "\n", encoding="utf-8")
        progress(self.modality, count.before, len(wanted))
        for lines in batches:
            self._append(lines)
            for line in lines:
                _tell(count, line)
            progress(self.modality, count.before + count.made + count.rejected + count.failed, len(wanted))
        return count

    def _written(self, records: Sequence[Record]) -> Iterator[list[dict[str, Any]]]:
        """Lines of completed.jsonl, in batches. A value's file is written before its line is returned. The models are
        loaded immediately, so nothing is written if that fails."""
        if not records:
            return iter(())
        generator = self.options.load(self.modality, self.device)
        ranker = load_open_clip(self.options.ranker, self.device) if self.options.ranker else None
        size = self.options.batch_size
        return (self._batch(records[i : i + size], generator, ranker) for i in range(0, len(records), size))

    def _batch(self, records: Sequence[Record], generator: Generator, ranker: OpenClip | None) -> list[dict[str, Any]]:
        lines, requests, asked = [], [], []
        for record in records:
            try:
                requests.append(self._request(record))
                asked.append(record)
            except ValueError as error:
                lines.append({"id": record.id, "modality": self.modality, "failed": str(error)})
        candidates = generator.generate(requests) if requests else []
        for record, request, made in zip(asked, requests, candidates, strict=True):
            lines.append(self._line(record, request, made, ranker))
        return lines

    def _request(self, record: Record) -> Request:
        """The request for one example.

        Raises ValueError when the source cannot be read or the model cannot use this kind of source.
        """
        source = Value(record.value(self.options.source)).read()
        label = ", ".join(names_in(self.shard.info.task, record.label))
        kind = self.shard.info.kinds.get(label, "")
        prompt = self.options.prompt(label if self.options.class_name else "", kind, source)
        return Request(source, prompt, seeds(self.options, self.modality, record.id))

    def _line(self, record: Record, request: Request, made: Sequence[Raw], ranker: OpenClip | None) -> dict[str, Any]:
        scores = clip_scores(ranker, request.source, made) if ranker else []
        best = scores.index(max(scores)) if ranker else 0
        line: dict[str, Any] = {
            "id": record.id,
            "modality": self.modality,
            "source": self.options.source,
            "model": self.options.model,
            "prompt": request.prompt,
            "seed": request.seeds[best],
            "score": scores[best] if scores else None,
        }
        threshold = self.options.reject_below
        if threshold is not None and scores[best] < threshold:
            return line | {"rejected": f"the score is below {threshold:g}"}
        return line | self._keep(record, made[best])

    def _keep(self, record: Record, value: Raw) -> dict[str, str]:
        """Write a generated value. Returns the keys for its line: the text, or the name of its file."""
        if isinstance(value, str):
            return {"value": value}
        assert isinstance(value, Image.Image)
        name = f"{derive(0, record.id):016x}.png"  # an id may contain characters that a file name must not contain
        value.convert("RGB").save(self.folder / name)
        return {"file_name": name}

    def _append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Append lines and force them to the disk. An incomplete line from an interruption is removed first."""
        path = self.folder / LINES
        _cut(path)
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())


def seeds(options: CompleterOptions, modality: Modality, name: str) -> list[int]:
    """One seed per candidate, a function of the completer's seed, the modality and the example."""
    return [derive(options.seed, "completion", modality, name, i) for i in range(options.candidates)]


def clip_scores(ranker: OpenClip, source: Raw, made: Sequence[Raw]) -> list[float]:
    """The cosine similarity of each candidate and the source in the ranker's space."""
    scores: list[float] = (ranker.embed(made) @ ranker.embed([source])[0]).tolist()
    return scores


def _tell(count: Count, line: Mapping[str, Any]) -> None:
    count.rejected += "rejected" in line
    count.failed += "failed" in line
    count.made += not {"rejected", "failed"} & line.keys()
    if line.get("score") is not None:
        count.scores.append(line["score"])


def _cut(path: Path) -> None:
    """Remove everything after the last line end of a file."""
    if path.exists() and not (content := path.read_bytes()).endswith(b"\n"):
        path.write_bytes(content[: content.rfind(b"\n") + 1])
