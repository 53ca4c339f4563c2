"""Holds out a share of every site's examples as a test shard, for a benchmark on one machine."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.columns import Category, Column, Columns, Described
from common.data.shard import Example, Media, Record, Shard, ShardInfo, ShardWriter
from common.data.sites import TEST
from common.errors import ShardError
from common.files import is_free, whole_folder
from common.modality import Modality
from common.seeding import rng
from common.split.strata import strata
from deploy.progress import tracked
from server.aggregation.columns import clashes

BY = "fedmosaic split"


@dataclass(frozen=True)
class Part:
    """The parts of one shard: the examples that stay, and those for the test shard."""

    shard: Shard
    kept: list[Record]
    held: list[Record]


def hold_out(shards: Sequence[Shard], share: float, seed: int, out: Path) -> list[Part]:
    """Write the shards without the held-out examples to `out`, under the names of their folders, and all held-out
    examples to `out`/test. The shards themselves stay as they are.

    share: of the examples of each class (see `strata`) at each site. At least one of them stays at its site.

    Raises ShardError when `out` exists and is not empty, when the shards do not fit together, and when no class has
    enough examples.
    """
    if not is_free(out):
        raise ShardError(f"{out} exists and is not empty: choose another folder")
    test, columns = _test_info(shards)
    parts = [_part(shard, share, seed) for shard in shards]
    if not any(part.held for part in parts):
        raise ShardError(f"no class of a site has enough examples to hold out {share:.0%}: choose a larger share")
    try:
        with whole_folder(out) as unfinished:
            for part in parts:
                _write(unfinished / part.shard.folder.name, part.shard, part.kept)
            ShardWriter(unfinished / TEST, test, columns).write(
                _example(record, f"{part.shard.folder.name}/{record.id}") for part in parts for record in part.held
            )
    except OSError as error:
        raise ShardError(f"{out} cannot be written: {error.strerror}") from None
    return parts


def _part(shard: Shard, share: float, seed: int) -> Part:
    """The examples of each class, divided at random."""
    by_stratum = defaultdict[str, list[str]](list)
    for record, stratum in zip(shard.records, strata([record.label for record in shard.records]), strict=True):
        by_stratum[stratum].append(record.id)
    held = set[str]()
    for stratum, ids in by_stratum.items():
        count = min(round(share * len(ids)), len(ids) - 1)
        held |= set(rng(seed, "hold out", shard.info.site, stratum).permutation(sorted(ids))[:count].tolist())
    kept = [record for record in shard.records if record.id not in held]
    return Part(shard, kept, [record for record in shard.records if record.id in held])


def _write(folder: Path, shard: Shard, records: Sequence[Record]) -> None:
    info = shard.info.model_copy(update={"made": {**shard.info.made, "divided": BY}})
    ShardWriter(folder, info, shard.columns).write(_examples(shard, records))


def _examples(shard: Shard, records: Sequence[Record]) -> Iterator[Example]:
    return (_example(record, record.id) for record in tracked(records, f"copying {shard.folder.name}"))


def _example(record: Record, name: str) -> Example:
    media = {m: Media(path.read_bytes, path.suffix) for m, path in record.files.items()}
    media |= {m: Media.text(text) for m, text in record.texts.items()}
    media |= {m: Media.row(row.cells) for m, row in record.rows.items()}
    return Example(name, record.label, media)


def _test_info(shards: Sequence[Shard]) -> tuple[ShardInfo, dict[Modality, Columns]]:
    """The info and the columns of a shard with examples of all shards.

    Raises ShardError with every difference that prevents it.
    """
    modalities = sorted({m for shard in shards for m in shard.info.modalities})
    rates = {m: {shard.info.rates[m] for shard in shards if m in shard.info.rates} for m in modalities}
    mistakes = [f"{shard.folder.name} is {shard.info.task}, {shards[0].folder.name} is {shards[0].info.task}"
                for shard in shards if shard.info.task != shards[0].info.task]  # fmt: skip
    mistakes += [
        f"{m} has the rates {sorted(found)} at different sites" for m, found in rates.items() if len(found) > 1
    ]
    columns = dict[Modality, Columns]()
    for modality in modalities:
        told = {shard.folder.name: shard.columns[modality] for shard in shards if modality in shard.columns}
        described = {site: {n: Described(column=c) for n, c in own.items()} for site, own in told.items()}
        mistakes += [f"{modality}: {clash}" for clash in clashes(described)]
        if told:
            columns[modality] = _joined(list(told.values()))
    if mistakes:
        listed = "".join(f"\n  - {mistake}" for mistake in mistakes)
        raise ShardError(f"the shards cannot share a test shard: import files for {TEST} on their own{listed}")
    info = ShardInfo(
        site=TEST,
        task=shards[0].info.task,
        classes=shards[0].info.classes,
        modalities=modalities,
        licence="; ".join(sorted({shard.info.licence for shard in shards} - {""})),
        kinds={name: kind for shard in shards for name, kind in shard.info.kinds.items()},
        rates={m: found.pop() for m, found in rates.items() if found},
        made={"by": BY, "part": TEST},
    )
    return info, columns


def _joined(sites: Sequence[Mapping[str, Column]]) -> Columns:
    """The columns of all sites. A column of categories has the categories of all sites."""
    joined = dict[str, Any]()
    for name, column in ((name, column) for columns in sites for name, column in columns.items()):
        if isinstance(column, Category) and name in joined:
            column = column.model_copy(update={"values": list(dict.fromkeys([*joined[name].values, *column.values]))})
        joined[name] = column
    return joined
