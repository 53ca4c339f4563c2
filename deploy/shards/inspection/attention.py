"""Possible problems in a shard."""

import difflib
from collections.abc import Iterable

from common.data.shard import FILE_KEY
from common.findings import too_many_unreadable
from common.media.pictures import narrow_range
from common.tasks.regression import RegressionTask
from deploy.shards.inspection.survey import Survey
from server.sites.attention import concerns
from server.sites.rates import different_rates, lower_rates


def attention(survey: Survey) -> list[str]:
    """The problems that the server would find in the site's introduction, and those that only the site can find."""
    info = survey.shard.info
    told = {m: found.model_dump() for m, found in survey.findings().items()}
    said = [one.what for one in concerns({info.site: {"findings": told}}, info.classes)]
    return [
        *said,
        *_unread_keys(survey),
        *_blank_values(survey),
        *_dark_pictures(survey),
        *_rates(survey),
        *(f"{m}, {problem}" for m, table in survey.tables.items() for problem in table.problems()),
        *_labels(survey),
        *survey.unlike,
        *_shared_files(survey),
        *_without_encoder(survey),
        *_without_values(survey),
    ]


def refusal(survey: Survey, most: float) -> str | None:
    """The reason why a run would refuse the site, or None. most: `data.max_unreadable`."""
    if survey.task and survey.task.name != survey.shard.info.task:
        return f"its labels are for task {survey.shard.info.task}, the experiment's task is {survey.task.name}"
    if not survey.encoders.keys() & survey.modalities.keys():
        return "the experiment has no encoder for any modality of the shard"
    columns = survey.shard.columns
    wrong = [f"{m}: {why}" for m, e in survey.encoders.items() for why in e.check_columns(columns.get(m, {}))
             if m in survey.modalities]  # fmt: skip
    if wrong:
        return "; ".join(wrong)
    return too_many_unreadable({m: f for m, f in survey.findings().items() if m in survey.encoders}, most)


def _labels(survey: Survey) -> Iterable[str]:
    """Labels and targets that a model cannot learn."""
    if survey.sets:
        yield from survey.sets.problems()
    task = survey.task if isinstance(survey.task, RegressionTask) else None
    for place, (name, seen) in enumerate(survey.targets.items()):
        scale = (float(task.mean[place]), float(task.std[place])) if task else None
        yield from (f"target {name}: {problem}" for problem in seen.problems(scale))


def _unread_keys(survey: Survey) -> Iterable[str]:
    known = [key for m in survey.shard.info.modalities for key in (m + FILE_KEY, m)]
    for key, count in survey.shard.unread.items():
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.8)
        hint = f". Did you mean {near[0]!r}?" if near else ""
        yield f"{count} lines of metadata.jsonl have the unknown key {key!r}, which is ignored{hint}"


def _blank_values(survey: Survey) -> Iterable[str]:
    for modality, count in survey.shard.blank.items():
        what = "rows without a cell" if modality in survey.tables else "empty texts"
        yield f"{count} {modality} values are {what} and count as missing"


def _dark_pictures(survey: Survey) -> Iterable[str]:
    for modality, values in survey.modalities.items():
        if hint := narrow_range(values.brightest):
            yield f"{modality}: {hint}"


def _rates(survey: Survey) -> Iterable[str]:
    """Sampling rates that differ from the other shard's, or are lower than the encoder's."""
    own = survey.findings()
    if survey.other is not None:
        yield from different_rates({survey.shard.info.site: own, survey.other.site: survey.other.findings})
    for modality, encoder in survey.encoders.items():
        if modality in own:
            yield from lower_rates(modality, own[modality], encoder.rate)


def _shared_files(survey: Survey) -> Iterable[str]:
    for modality, count in survey.duplicates.items():
        yield f"{count} {modality} files are also in the other shard, with the same bytes"


def _without_encoder(survey: Survey) -> Iterable[str]:
    if survey.encoders:
        for modality in sorted(survey.modalities.keys() - survey.encoders.keys()):
            yield f"the experiment has no encoder for {modality} and will not use it"


def _without_values(survey: Survey) -> Iterable[str]:
    for modality in sorted(survey.encoders.keys() - survey.modalities.keys()):
        yield f"the experiment has an encoder for {modality}, but the shard has no {modality}"
