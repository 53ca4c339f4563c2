"""Makes shards: data set -> partition -> missing scenario -> one shard per client, and a test shard for the server."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.config.experiment import Experiment
from common.data.shard import Example, ShardInfo, ShardWriter, Written
from common.data.sites import TEST
from common.datasets.base import DataSet
from common.errors import DataError, ShardError
from common.files import is_free, whole_folder
from common.seeding import rng
from common.split.missing import drop, unimodal_clients
from common.split.strata import strata

MADE = "made.json"


def client_name(index: int) -> str:
    """The folder name, and the default site name, of a client's shard."""
    return f"client-{index}"


def make_shards(experiment: Experiment, out: Path, progress: Callable[[str], None] = lambda _: None) -> list[Path]:
    """Write `out`/client-0, client-1, ... and `out`/test. Returns the folders of the clients.

    The same experiment gives the same bytes. Either all shards are written or none. Test data stay complete. `progress`
    is called with the name of each shard before the shard is written.

    Raises ShardError when `out` exists and is not empty, and DataError when the data set cannot be read or partitioned.
    """
    if experiment.data.set is None:
        raise DataError("data.set is empty: there is no data set to make shards from")
    if not is_free(out):
        raise ShardError(f"{out} exists and is not empty: remove it or choose another folder")
    with whole_folder(out) as partial:
        _write_all(experiment, partial, progress)
        (partial / MADE).write_text(json.dumps(recipe(experiment), indent=1) + "\n", encoding="utf-8")
    return [out / client_name(index) for index in range(experiment.data.clients)]


def check_made(experiment: Experiment, shards: Path) -> None:
    """Check that earlier shards of `make_shards` were made with the options of this experiment. Shards from other
    sources are not checked, and no shards are checked if the experiment has no data set.

    Raises ShardError, which lists the options that differ.
    """
    try:
        made = json.loads((shards / MADE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise ShardError(f"{shards / MADE} cannot be read: {error}") from None
    if experiment.data.set is None:
        return
    wanted = recipe(experiment)
    if differ := [f"{key}: {made.get(key)!r}, now {wanted[key]!r}" for key in wanted if made.get(key) != wanted[key]]:
        listed = "".join(f"\n  - {line}" for line in differ)
        raise ShardError(f"the shards in {shards} were made with other options; remove them or choose others{listed}")


def recipe(experiment: Experiment) -> dict[str, Any]:
    """Everything that determines the bytes of the shards. The folders of the source files are not included."""
    data = experiment.data.model_dump(mode="json", exclude={"validation", "complete_only", "max_unreadable"})
    return {"seed": experiment.seed, "modalities": experiment.modalities, **data, "set": _set_made(experiment)}


def _set_made(experiment: Experiment) -> dict[str, Any] | None:
    """The data set's options, without the folders of its files, because the sites that receive shards do not need
    them."""
    if experiment.data.set is None:
        return None
    source: DataSet = experiment.component("data set")
    return {key: value for key, value in experiment.data.set.items() if key not in source.folders}


def _write_all(experiment: Experiment, out: Path, progress: Callable[[str], None]) -> None:
    from common.split.partition import partition  # here, because the import of flwr-datasets takes seconds

    source: DataSet = experiment.component("data set")
    seed, data = experiment.seed, experiment.data
    train = _take(experiment, source.examples("train", seed), data.limit, "train")
    parts = partition(
        strata([example.label for example in train]),
        [example.group for example in train],
        data.clients,
        data.partition,
        seed,
    )
    written = Written()
    single = unimodal_clients(data.clients, experiment.modalities, data.missing, seed)
    for index, part in enumerate(parts):
        name = client_name(index)
        progress(name)
        held = [single[index]] if index in single else experiment.modalities
        examples = _incomplete(experiment, [_only(train[i], held) for i in part], name)
        written.add(_write(experiment, source, out / name, name, held, examples))
    progress(TEST)
    test = _take(experiment, source.examples("test", seed), data.test_limit, "test")
    written.add(_write(experiment, source, out / TEST, TEST, experiment.modalities, test))
    for modality in sorted(written.unreadable.keys() - written.values.keys()):
        count, reason = written.unreadable[modality], written.reasons[modality][0]
        raise DataError(f"none of {count} {modality} values of the data set can be read; the first reason: {reason}")


def _take(experiment: Experiment, examples: list[Example], limit: int | None, part: str) -> list[Example]:
    """At most `limit` examples, chosen by seed, with only the experiment's modalities."""
    kept = [_only(example, experiment.modalities) for example in examples]
    if doubled := [name for name, count in Counter(example.id for example in kept).items() if count > 1]:
        raise DataError(f"the {part} part has several examples with the same id: {', '.join(sorted(doubled)[:5])}")
    if not kept:
        raise DataError(f"the {part} part has no examples")
    order = rng(experiment.seed, "limit", part).permutation(len(kept))[:limit]
    return [kept[i] for i in sorted(order)]


def _only(example: Example, modalities: Sequence[str]) -> Example:
    return replace(example, media={m: media for m, media in example.media.items() if m in modalities})


def _incomplete(experiment: Experiment, examples: list[Example], name: str) -> list[Example]:
    present = [frozenset(example.media) for example in examples]
    labels = strata([example.label for example in examples])
    kept = drop(present, labels, experiment.data.missing, experiment.seed, name)
    return [_only(example, sorted(keep)) for example, keep in zip(examples, kept, strict=True) if keep]


def _write(
    experiment: Experiment, source: DataSet, folder: Path, name: str, held: list[str], examples: list[Example]
) -> Written:
    made: dict[str, Any] = {
        "data_set": _set_made(experiment),
        "part": TEST if name == TEST else "train",
        "seed": experiment.seed,
        "partition": experiment.data.partition.model_dump(),
        "missing": experiment.data.missing.model_dump(),
    }
    info = ShardInfo(
        site=name,
        task=source.task,
        classes=source.classes,
        modalities=held,
        licence=source.licence,
        kinds=source.kinds,
        made=made,
    )
    columns = {m: own for m, own in source.columns.items() if m in held}
    return ShardWriter(folder, info, columns).write(examples)
