"""Rows that are gathered late, against the same operations on tensors in memory."""

import torch
from conftest import make_batch
from hypothesis import given
from hypothesis import strategies as st

from common.rows import BLANK, Held, Rows
from common.types import Batch, Origin

SHAPES = {"audio": (3, 2), "image": (4,)}


def late(batch: Batch, seed: int) -> Batch:
    """The same examples: the values that are there, in another order, and where each is."""
    whole, index = {}, {}
    for m, x in batch.inputs.items():
        there = batch.has(m).nonzero()[:, 0]
        order = torch.randperm(len(there), generator=torch.Generator().manual_seed(seed))
        whole[m], index[m] = x[there[order]], torch.full((len(batch),), BLANK)
        index[m][there[order]] = torch.arange(len(there))
    return Batch(Rows({m: Held(x) for m, x in whole.items()}, index), batch.origin, batch.labels)


def same(one: Batch, other: Batch) -> bool:
    columns = ((one.inputs, other.inputs), (one.origin, other.origin))
    return torch.equal(one.labels, other.labels) and all(
        x.keys() == y.keys() and all(torch.equal(x[m], y[m]) for m in x) for x, y in columns
    )


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.4]), st.integers(1, 9))
def test_choosing_and_hiding_rows_gives_what_tensors_give(seed: int, missing: float, count: int) -> None:
    batch = make_batch(SHAPES, count, 3, seed, missing)
    batch = Batch(
        {m: torch.where(batch.has(m).view(-1, *[1] * len(SHAPES[m])), x, 0) for m, x in batch.inputs.items()},
        {m: torch.where(batch.has(m) & (batch.labels == 0), int(Origin.GENERATED), o) for m, o in batch.origin.items()},
        batch.labels,
    )
    rows, index = late(batch, seed), torch.randint(count, (count,), generator=torch.Generator().manual_seed(seed))
    assert same(rows, batch)
    assert same(rows.gathered(), batch)
    for change in (
        lambda b: b.rows(index),
        lambda b: b.rows(b.labels > 0),
        lambda b: b.observed(),
        lambda b: b.observed().rows(b.observed().labels > 1).complete(["audio"]),
        lambda b: b.only(["image"]),
    ):
        assert same(change(rows), change(batch))
