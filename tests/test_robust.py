"""Nothing bad gets in: refused updates, robust rules against loops by hand, differential privacy."""

import io
import json
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import experiment
from flwr.app import Array, ArrayRecord, ConfigRecord, Message
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.integrate import quad
from scipy.stats import norm as normal
from test_strategies import strategy

from client.site import Site
from common.blocks import Params, block_of, get_params, select
from common.build import build_model
from common.config.component import build
from common.errors import ConfigError, RunError, WireError
from common.exchange import wire
from common.exchange.privacy import clip, epsilon, noise, norm
from common.types import Update
from deploy.engines.in_process import InProcessGrid, claim_identity
from fedmosaic.testing.strategies import NoGrid, reply
from server.aggregation.block_mean import BlockMean
from server.record.checkpoint import load_checkpoint
from server.record.run_folder import RunFolder, read_rounds
from server.rounds.federation import Federation

SHAPES = {"branches.audio.w": (3, 2), "branches.image.w": (4,), "fusion.weight": (2, 3), "fusion.bias": ()}
RULES = ("median", "trimmed-mean", "krum")
BOTH, AUDIO = frozenset({"audio", "image"}), frozenset({"audio"})


def params(seed: int, scale: float = 1.0) -> Params:
    rng = torch.Generator().manual_seed(seed)
    return {name: scale * torch.randn(shape, generator=rng) for name, shape in SHAPES.items()}


def updates_of(held: list[frozenset[str]], scale: float = 1.0) -> list[Update]:
    return [Update(f"site-{i}", blocks, select(params(i + 1, scale), blocks), 5 + i) for i, blocks in enumerate(held)]


def made(name: str, **options: Any) -> Any:
    claim_identity()
    return build("strategy", {"name": name, **options}).build(experiment(), None)


def combine(chosen: Any, updates: list[Update], received: Params) -> tuple[Params, dict[str, Any]]:
    mean = BlockMean()
    for update in updates:
        chosen.contribute(mean, update, received)
    figures = chosen.finish(mean)
    return mean.result(received), figures


def rows(updates: list[Update], name: str) -> np.ndarray:
    """[holders, values] of a parameter."""
    held = [update.params[name].double().numpy().reshape(-1) for update in updates if name in update.params]
    return np.stack(held)


def median_by_hand(values: np.ndarray) -> list[float]:
    ranked = [sorted(column) for column in values.T]
    return [(column[(len(column) - 1) // 2] + column[len(column) // 2]) / 2 for column in ranked]


def trimmed_by_hand(values: np.ndarray, cut: int) -> list[float]:
    ranked = [sorted(column)[cut : len(column) - cut] for column in values.T]
    return [sum(column) / len(column) for column in ranked]


def krum_by_hand(updates: list[Update], block: str, byzantine: int, selected: int) -> dict[str, np.ndarray]:
    """The mean of the selected holders' parameters of a block, by loops over pairs."""
    names = [name for name in SHAPES if block_of(name) == block]
    whole = [np.concatenate(row) for row in zip(*(rows(updates, name) for name in names), strict=True)]
    scores = []
    for i, one in enumerate(whole):
        apart = sorted(float(((one - other) ** 2).sum()) for j, other in enumerate(whole) if j != i)
        scores.append(sum(apart[: len(whole) - byzantine - 2]))
    chosen = sorted(range(len(whole)), key=lambda i: scores[i])[:selected]
    return {name: rows(updates, name)[chosen].mean(0) for name in names}


SEVEN = [BOTH, AUDIO, BOTH, AUDIO, BOTH, BOTH, BOTH]  # seven hold audio and the shared block, five image


def test_median_and_trimmed_mean_by_hand() -> None:
    updates = updates_of(SEVEN)
    medians, figures = combine(made("median"), updates, params(0))
    trimmed, cut = combine(made("trimmed-mean", share=0.2), updates, params(0))
    for name in SHAPES:
        np.testing.assert_allclose(medians[name].reshape(-1), median_by_hand(rows(updates, name)), rtol=1e-6)
        np.testing.assert_allclose(trimmed[name].reshape(-1), trimmed_by_hand(rows(updates, name), 1), rtol=1e-6)
    assert figures["blocks"] == {
        "audio": {"holders": 7, "tolerated": 3},
        "image": {"holders": 5, "tolerated": 2},
        "shared": {"holders": 7, "tolerated": 3},
    }
    assert [block["tolerated"] for block in cut["blocks"].values()] == [1, 1, 1]
    more, _ = combine(made("trimmed-mean", share=0.45), updates, params(0))
    np.testing.assert_allclose(
        more["branches.image.w"], trimmed_by_hand(rows(updates, "branches.image.w"), 2), rtol=1e-6
    )


@pytest.mark.parametrize(("byzantine", "selected"), [(1, 1), (1, 2), (2, 1), (1, 3)])
def test_krum_by_hand(byzantine: int, selected: int) -> None:
    updates = updates_of(SEVEN)
    got, figures = combine(made("krum", byzantine=byzantine, selected=selected), updates, params(0))
    for block in ("audio", "image", "shared"):
        for name, value in krum_by_hand(updates, block, byzantine, selected).items():
            np.testing.assert_allclose(got[name].reshape(-1), value, rtol=1e-6)
        holders = figures["blocks"][block]["holders"]
        promised = holders >= 2 * byzantine + 3 and (selected == 1 or selected <= holders - byzantine - 2)
        assert figures["blocks"][block]["tolerated"] == (byzantine if promised else 0)
        assert len(figures["blocks"][block]["selected"]) == selected


def test_krum_tells_nearby_models_apart_that_are_far_from_the_origin() -> None:
    start = {name: value + 1000 for name, value in params(0).items()}
    near = {name: value + 1e-3 for name, value in start.items()}
    far = {name: value - 1e-2 for name, value in start.items()}
    sent = [near, far, start, near, near]
    updates = [Update(f"site-{i}", BOTH, update, 1) for i, update in enumerate(sent)]
    _, figures = combine(made("krum"), updates, start)
    assert {block["selected"][0] for block in figures["blocks"].values()} == {"site-0"}


@pytest.mark.parametrize("rule", RULES)
def test_with_few_holders_a_rule_becomes_what_is_documented(rule: str, caplog: pytest.LogCaptureFixture) -> None:
    updates = updates_of([BOTH, BOTH, AUDIO, AUDIO, AUDIO])
    chosen = made(rule)
    with caplog.at_level(logging.WARNING):
        got, figures = combine(chosen, updates, params(0))
        combine(chosen, updates, params(0))
    assert [name for name, said in figures["blocks"].items() if not said["tolerated"]] == ["image"]
    np.testing.assert_allclose(got["branches.image.w"], rows(updates, "branches.image.w").mean(0), rtol=1e-6)
    warned = [record.getMessage() for record in caplog.records]
    assert len(warned) == 1
    assert "block image: 2 clients of the round hold it" in warned[0]
    assert f"protects with {3 if rule == 'median' else 5} or more holders" in warned[0]


@pytest.mark.parametrize("rule", RULES)
def test_a_modality_that_nobody_holds_keeps_its_block(rule: str) -> None:
    got, figures = combine(made(rule), updates_of([AUDIO] * 5), params(0))
    assert torch.equal(got["branches.image.w"], params(0)["branches.image.w"])
    assert set(figures["blocks"]) == {"audio", "shared"}


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_clients_and_coordinates_may_be_reordered(rule: str, data: st.DataObject) -> None:
    updates = updates_of(SEVEN)
    clients = data.draw(st.permutations(range(7)))
    got, _ = combine(made(rule), updates, params(0))
    again, _ = combine(made(rule), [updates[i] for i in clients], params(0))
    assert all(torch.equal(got[name], again[name]) for name in SHAPES)
    turns = {name: torch.tensor(data.draw(st.permutations(range(math.prod(shape))))) for name, shape in SHAPES.items()}

    def turned(given: Mapping[str, torch.Tensor]) -> Params:
        return {name: value.reshape(-1)[turns[name]].reshape(value.shape) for name, value in given.items()}

    moved = [Update(update.site, update.held, turned(update.params), 1) for update in updates]
    after, _ = combine(made(rule), moved, turned(params(0)))
    assert all(torch.allclose(after[name], value, rtol=1e-6) for name, value in turned(got).items())


@pytest.mark.parametrize("rule", ["median", "trimmed-mean"])
@settings(max_examples=40, deadline=None)
@given(
    holders=st.integers(3, 9),
    others=st.integers(0, 6),
    attack=st.floats(-(2.0**99), 2.0**99, width=32),
    seed=st.integers(0, 999),
)
def test_a_hostile_minority_of_each_block_cannot_leave_the_honest_range(
    rule: str, holders: int, others: int, attack: float, seed: int
) -> None:
    chosen = made(rule, **({"share": 0.4} if rule == "trimmed-mean" else {}))
    hostile = chosen.tolerated(holders)  # of those who hold image: the rarer modality, so fewer than of the others
    held = [BOTH] * holders + [AUDIO] * others
    rng = np.random.default_rng(seed)
    updates = [Update(f"site-{i}", h, select(params(seed + i), h), 1) for i, h in enumerate(held)]
    for i in rng.permutation(holders)[:hostile]:
        bad = {name: torch.full_like(value, attack) for name, value in updates[i].params.items()}
        updates[i] = Update(f"site-{i}", held[i], bad, 10**6)
    honest = [u for u in updates if u.num_examples == 1]
    got, _ = combine(chosen, updates, params(seed + 99))
    for name, value in got.items():
        fair = rows(honest, name)
        flat = value.reshape(-1).double().numpy()
        assert (flat >= fair.min(0) - 1e-5).all() and (flat <= fair.max(0) + 1e-5).all(), name


@settings(max_examples=25, deadline=None)
@given(attack=st.floats(-(2.0**99), 2.0**99, width=32).filter(lambda x: abs(x) > 20), at=st.integers(0, 4))
def test_krum_never_selects_an_outlier_and_rare_blocks_are_judged_by_their_holders(attack: float, at: int) -> None:
    held = [BOTH] * 5 + [AUDIO] * 6
    updates = updates_of(held)
    bad = {name: torch.full_like(value, attack) for name, value in updates[at].params.items()}
    updates[at] = Update(f"site-{at}", BOTH, bad, 1)
    _, figures = combine(made("krum"), updates, params(0))
    assert all(said["selected"] != [f"site-{at}"] for said in figures["blocks"].values())
    assert figures["blocks"]["image"] == {
        "holders": 5,
        "tolerated": 1,
        "selected": figures["blocks"]["image"]["selected"],
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "trimmed-mean", "share": 0.5},
        {"name": "krum", "byzantine": 0},
        {"name": "krum", "selected": 0},
        {"name": "dp-mean", "noise": 0.0},
        {"name": "dp-mean", "clip": -1.0},
        {"name": "dp-mean", "delta": 1.0},
        {"name": "median", "share": 0.1},
    ],
)
def test_options_out_of_range_are_mistakes(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="1 mistake"):
        experiment(strategy=wrong)


# What is refused, through whole rounds ------------------------------------------------------------------------------


def repacked(change: Callable[[Params], Params], dtype: str = "float32") -> Callable[[Message], None]:
    def spoil(message: Message) -> None:
        sent = wire.unpack(message.content.array_records["params"])
        message.content["params"] = wire.pack(change(sent), dtype)

    return spoil


def said(**changes: Any) -> Callable[[Message], None]:
    def spoil(message: Message) -> None:
        message.content["body"] = wire.body(wire.read_body(message) | changes)

    return spoil


def first(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Params], Params]:
    return lambda sent: sent | {min(sent): change(sent[min(sent)])}


def raw(data: bytes) -> Callable[[Message], None]:
    def spoil(message: Message) -> None:
        message.content["params"] = ArrayRecord({"params": Array("uint8", (len(data),), "numpy.ndarray", data)})

    return spoil


def archive() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    return buffer.getvalue()


def claims(shape: tuple[int, ...]) -> bytes:
    """A NumPy header that claims an array of this shape, and no data."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def deep(message: Message) -> None:
    message.content["body"] = ConfigRecord({"json": "[" * 200_000})


ANSWERS = {"answers": {"at": [0, 1], "counts": [900, 100], "sums": [10.0]}}
SPOILS: dict[str, tuple[Callable[[Message], None], str]] = {
    "nan": (repacked(first(lambda x: x * float("nan"))), "values that are not finite"),
    "infinite": (repacked(first(lambda x: x + float("inf"))), "values that are not finite"),
    "shape": (repacked(first(lambda x: x.reshape(-1)[:-1])), "has shape"),
    "dtype": (repacked(dict, "bfloat16"), "is bfloat16, the experiment's wire is float32"),
    "too large": (repacked(lambda p: p | {"more": torch.zeros(10**6)}), "the expected blocks need"),
    "other block": (repacked(lambda p: p | {"branches.video.w": torch.zeros(2)}), "unexpected ['branches.video.w']"),
    "lacking block": (repacked(lambda p: {k: v for k, v in p.items() if block_of(k) != "audio"}), "missing"),
    "nothing": (repacked(lambda p: {}), "missing"),
    "norm": (repacked(first(lambda x: x + 1e4)), "federation.max_update_norm is 1000"),
    "huge": (repacked(first(lambda x: x + 3e38)), "federation.max_update_norm is 1000"),
    "examples": (said(num_examples=10**9), "examples, but the site's introduction has"),
    "validation": (said(validation={"audio": ANSWERS}),
                   "validation of audio: 1000 examples, but the site's introduction has"),
    "archive": (raw(archive()), "must be an array of bytes"),
    "claimed size": (raw(claims((2**60,))), "must be an array of bytes"),
    "no data": (raw(b""), "must be an array of bytes"),
    "nested body": (deep, "no readable body"),
    "no body": (lambda message: message.content.pop("body"), "no body"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILS)
def test_a_bad_reply_is_left_out_with_site_and_reason_and_the_run_goes_on(
    name: str, tiny_shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoil, reason = SPOILS[name]

    def tamper(node: int, message: Message) -> Message:
        if node == 11 and "params" in message.content.array_records:
            spoil(message)
        return message

    grid = InProcessGrid([Site(tiny_shards / "client-0"), Site(tiny_shards / "client-1")], tamper)
    chosen = experiment(federation__min_replies=1, federation__rounds=1, federation__max_update_norm=1000)
    Federation(chosen, grid, None, RunFolder(tmp_path, chosen)).run()
    line = read_rounds(tmp_path)[1]
    assert reason in line["failed"]["client-1"]
    assert set(line["clients"]) == {"client-0"}
    assert any("client-1" in entry.getMessage() and reason in entry.getMessage() for entry in caplog.records)
    assert all(value.isfinite().all() for value in load_file(tmp_path / "model.safetensors").values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_norm_bound_is_of_the_update_minus_what_was_received(dtype: str) -> None:
    start = {name: value + 1e3 for name, value in params(0).items()}
    got = {name: value.to(wire.DTYPES[dtype]).float() for name, value in start.items()}  # what the client sees
    moved = got | {"fusion.bias": got["fusion.bias"] + 16}
    for bound, failed in ((16.1, set()), (15.9, {"site-0"})):
        chosen = strategy("fedcmi", [{"audio", "image"}] * 2, federation__max_update_norm=bound, wire__dtype=dtype,
                          federation__min_replies=1)  # fmt: skip
        messages = list(chosen.configure_train(1, wire.pack(start), ConfigRecord(), NoGrid()))  # type: ignore[arg-type]
        replies = [reply(messages[i], chosen, update, 1) for i, update in enumerate((moved, got))]
        for message, update in zip(replies, (moved, got), strict=True):
            message.content["params"] = wire.pack(update, dtype)
        chosen.aggregate_train(1, replies)
        assert set(chosen.report.failed) == failed
    assert "norm 16, federation.max_update_norm is 15.9" in chosen.report.failed["site-0"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda p: {"other.weight": torch.zeros(3)}, "missing"),
        (first(lambda x: x.unsqueeze(0)), "has shape"),
        (first(lambda x: x * float("nan")), "not finite"),
        (lambda p: p | {"more": torch.zeros(10**6)}, "the expected blocks need"),
        (lambda p: {k: v for k, v in p.items() if block_of(k) != "shared"}, "missing"),
    ],
)
def test_a_client_refuses_a_model_that_is_not_its_own(
    change: Callable[[Params], Params], reason: str, tiny_shards: Path
) -> None:
    claim_identity()
    chosen = experiment()
    site = Site(tiny_shards / "client-0")
    held = site.open(chosen).loaded.examples.modalities
    sent = change(select(get_params(build_model(chosen, 10)), held))
    content = wire.record({"experiment": chosen.to_json(), "round": 1, "modalities": sorted(held)}, wire.pack(sent))
    answer = site.answer(Message(content, dst_node_id=10, message_type="train"))
    said = json.loads(str(answer.config_records["body"]["json"]))
    assert said["error"].startswith("WireError: ")
    assert reason in said["error"]


def test_ten_thousand_mutations_of_a_packed_model_are_read_as_sent_or_refused() -> None:
    claim_identity()
    start = params(0)
    whole = wire.pack(start)["params"].data
    rng, refused = np.random.default_rng(1), 0
    for _ in range(10_000):
        data = bytearray(whole)
        place = rng.integers(0, 2)  # of values alone, or anywhere
        for at in rng.integers(0 if place else len(data) - 60, len(data), size=rng.integers(1, 5)):
            data[at] = rng.integers(0, 256)
        if rng.random() < 0.2:
            data = data[: rng.integers(0, len(data))]
        array = Array("uint8", (len(data),), "numpy.ndarray", bytes(data))
        message = Message(wire.record({}, ArrayRecord({"params": array})), dst_node_id=1, message_type="train")
        try:
            got = wire.read_params(message, start, "float32")
        except WireError:
            refused += 1
            continue
        assert got.keys() == start.keys()
        assert all(got[name].shape == value.shape and got[name].isfinite().all() for name, value in start.items())
    assert 1000 < refused < 9990


HOSTILE_HEADERS: list[Any] = [
    {"a": {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 0]}},
    {"a": {"dtype": "F32", "shape": [2**63, 2**63], "data_offsets": [0, 4]}},
    {"a": {"dtype": "F32", "shape": [2**64 - 1, 0], "data_offsets": [0, 0]}},
    {"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}},
    {"a": {"dtype": "F8_E8M0", "shape": [4], "data_offsets": [0, 4]}},
    {"a": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}},
    {"a": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}},
    {"a": {"dtype": "BOOL", "shape": [4], "data_offsets": [0, 4]}},
    {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
    {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
    {"__metadata__": {"x": "y" * 900}},
    {"__metadata__": {"x": 1}},
    {"\ud800": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
    [1, 2],
    "text",
    {},
]


@pytest.mark.parametrize("header", HOSTILE_HEADERS, ids=range(len(HOSTILE_HEADERS)))
def test_hostile_headers_are_refused_with_our_error(header: Any) -> None:
    text = json.dumps(header).encode()
    ends = [part["data_offsets"][1] for part in header.values() if "data_offsets" in part] if "a" in header else []
    packed = len(text).to_bytes(8, "little") + text + b"\xff" * max(ends, default=0)
    record = ArrayRecord({"params": Array(np.frombuffer(packed, np.uint8))})
    message = Message(wire.record({}, record), dst_node_id=1, message_type="train")
    with pytest.raises(WireError):
        wire.read_params(message, {"a": torch.zeros(1)}, "float32")


@settings(max_examples=300, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["error", "site", "round", "num_examples", "validation", "audio", "losses"]),
                        inner, max_size=5), max_leaves=12))  # fmt: skip
def test_any_figures_are_read_or_refused_with_our_error(content: Any) -> None:
    claim_identity()
    chosen = strategy("median", [{"audio"}])
    (asked,) = chosen.configure_train(1, wire.pack(params(0)), ConfigRecord(), NoGrid())  # type: ignore[arg-type]
    bad = reply(asked, chosen, select(params(1), AUDIO), 1)
    bad.content["body"] = ConfigRecord({"json": json.dumps(content)})
    with pytest.raises(RunError, match="too few usable replies: 0 received"):
        chosen.aggregate_train(1, [bad])


# Differential privacy -----------------------------------------------------------------------------------------------


def test_clipping_keeps_the_direction_and_the_bound() -> None:
    given = params(3, scale=10)
    got = clip(given, 2.0)
    assert norm(got) == pytest.approx(2.0, rel=1e-12)
    scales = torch.cat([(got[name] / value).reshape(-1) for name, value in given.items()])
    assert float(scales.max() - scales.min()) < 1e-6
    short = {name: value * 1e-3 for name, value in given.items()}
    assert all(torch.equal(value, short[name].double()) for name, value in clip(short, 2.0).items())
    assert norm(clip({"w": torch.zeros(3)}, 1.0)) == 0
    many = {str(i): torch.tensor(10.0 ** (i % 9)) for i in range(50)}
    assert norm(many) == norm(dict(reversed(many.items())))  # to the last bit: a message's parameters have no order


def test_noise_has_its_level_and_is_a_function_of_secret_purpose_and_name() -> None:
    secret, blank = b"s" * 32, {"a": torch.zeros(200, 500), "b": torch.zeros(100_000)}
    got = noise(blank, 3.0, secret, 1, "audio")
    draws = np.concatenate([got["a"].reshape(-1).numpy(), got["b"].numpy()])
    assert abs(draws.mean()) < 4 * 3.0 / math.sqrt(len(draws))
    assert draws.std() == pytest.approx(3.0, rel=4 / math.sqrt(2 * len(draws)))
    for z in (-2.0, -1.0, 0.0, 1.0, 2.0):  # the whole distribution, not only its moments
        share = normal.cdf(z)
        assert abs((draws / 3 < z).mean() - share) < 4.5 * math.sqrt(share * (1 - share) / len(draws))
    again = noise(blank, 3.0, secret, 1, "audio")
    assert all(torch.equal(got[name], again[name]) for name in blank)
    flat = got["a"].reshape(-1)
    others = [noise(blank, 3.0, s, *p)["a"].reshape(-1)
              for s, p in ((b"t" * 32, (1, "audio")), (secret, (2, "audio")), (secret, (1, "image")))]  # fmt: skip
    for other in (got["b"], *others):
        assert abs(float(torch.corrcoef(torch.stack([flat, other]))[0, 1])) < 4 / math.sqrt(100_000)


def rdp_bound(releases: int, multiplier: float, delta: float) -> float:
    """An upper bound by Rényi accounting: the least over orders a of T a / (2 z^2) + log(1 / delta) / (a - 1)."""
    orders = 1 + np.logspace(-4, 4, 4000)
    return float((releases * orders / (2 * multiplier**2) + math.log(1 / delta) / (orders - 1)).min())


@pytest.mark.parametrize(("releases", "multiplier"), [(1, 1.0), (8, 0.7), (100, 4.0), (30, 30.0)])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-8])
def test_epsilon_equals_an_integral_over_the_privacy_loss(releases: int, multiplier: float, delta: float) -> None:
    """delta(eps) = E[max(0, 1 - exp(eps - L))] with the privacy loss L of T releases: N(mu^2 / 2, mu^2)."""
    got = epsilon(releases, multiplier, delta)
    mu = math.sqrt(releases) / multiplier
    start = max((got - mu * mu / 2) / mu, -12)

    def lost(z: float) -> float:
        return normal.pdf(z) * max(0.0, 1 - math.exp(got - (mu * mu / 2 + mu * z)))

    integral, _ = quad(lost, start, start + 12, epsabs=1e-14, epsrel=1e-10, limit=200)
    assert integral == pytest.approx(delta, rel=1e-4)
    assert 0.5 * rdp_bound(releases, multiplier, delta) < got <= rdp_bound(releases, multiplier, delta)


def test_epsilon_grows_with_releases_and_falls_with_noise() -> None:
    assert epsilon(0, 1.0, 1e-5) == 0
    assert epsilon(1, 1.0, 1e-5) == pytest.approx(4.3772, abs=1e-4)  # Balle and Wang's analytic Gaussian mechanism
    assert epsilon(1, 1e6, 1e-5) == 0
    assert epsilon(4, 2.0, 1e-5) == pytest.approx(epsilon(1, 1.0, 1e-5))
    grown = [epsilon(t, z, 1e-5) for t, z in ((1, 5.0), (2, 5.0), (50, 5.0), (50, 0.5), (50, 1e-3), (50, 1e-12))]
    assert grown == sorted(grown)
    assert math.isfinite(grown[-1])


SECRET = {"secret": torch.arange(32, dtype=torch.uint8)}


def private(**options: Any) -> Any:
    chosen = made("dp-mean", **options)
    chosen.restore(SECRET)
    return chosen


def test_no_site_moves_the_sums_further_than_the_clipping_bound() -> None:
    held = [BOTH, AUDIO, BOTH]
    updates = updates_of(held, scale=100)
    received = params(0)
    counts = {"audio": 3, "image": 2, "shared": 3}
    got, _ = combine(private(clip=2.0, noise=1e-12), updates, received)
    zeroed = [Update("site-0", BOTH, received, 1), *updates[1:]]  # sends back what it got
    without, _ = combine(private(clip=2.0, noise=1e-12), zeroed, received)
    moved = {name: (got[name].double() - without[name].double()) * counts[block_of(name)] for name in SHAPES}
    assert norm(moved) == pytest.approx(2.0, rel=1e-5)  # a client of all blocks, all of them clipped
    for block in counts:
        part = {name: value for name, value in moved.items() if block_of(name) == block}
        assert norm(part) == pytest.approx(2.0 / math.sqrt(3), rel=1e-5)


def test_short_updates_are_averaged_over_the_holders_whatever_their_examples() -> None:
    updates = updates_of([BOTH, AUDIO, BOTH])
    got, _ = combine(private(clip=1e3, noise=1e-9), updates, params(0))
    for name in SHAPES:
        np.testing.assert_allclose(got[name].reshape(-1), rows(updates, name).mean(0), rtol=1e-5, atol=1e-5)


def test_the_noise_of_a_mean_has_the_reported_level_and_does_not_follow_the_seed() -> None:
    shapes = {"branches.audio.w": (20_000,), "branches.image.w": (20_000,), "fusion.w": (20_000,)}
    received = {name: torch.zeros(shape) for name, shape in shapes.items()}
    updates = [Update(f"site-{i}", h, select(received, h), 1) for i, h in enumerate([BOTH, AUDIO, BOTH, AUDIO])]
    got, figures = combine(private(clip=2.0, noise=0.5), updates, received)
    for name, holders in zip(shapes, (4, 2, 4), strict=True):
        assert float(got[name].std()) == pytest.approx(0.5 * 2.0 / holders, rel=4 / math.sqrt(40_000))
        assert figures["blocks"][block_of(name)] == {"holders": holders, "noise_std": 0.5 * 2.0 / holders}
    one, other = (combine(made("dp-mean"), updates, received)[0] for _ in range(2))
    assert not torch.allclose(one["fusion.w"], other["fusion.w"])  # the same experiment and seed


def test_noise_goes_on_after_a_restart_and_is_never_used_for_two_sums() -> None:
    updates = updates_of([BOTH, AUDIO])
    whole, resumed, other = made("dp-mean"), made("dp-mean"), made("dp-mean")
    combine(whole, updates, params(0))
    resumed.restore(whole.state())
    whole._round = resumed._round = other._round = 2
    a, said = combine(whole, updates, params(0))
    b, again = combine(resumed, updates, params(0))
    assert all(torch.equal(a[name], b[name]) for name in SHAPES)
    assert said == again
    assert said["privacy"]["rounds"] == 2
    other.restore(whole.state())
    nearly = {name: value + 1e-3 * (name == "fusion.bias") for name, value in updates[1].params.items()}
    c, _ = combine(other, [updates[0], Update("site-1", AUDIO, nearly, 6)], params(0))
    assert not torch.allclose(a["fusion.weight"], c["fusion.weight"], rtol=1e-2)
    whole._round = 3
    d, _ = combine(whole, updates, params(0))
    assert not torch.allclose(a["fusion.weight"], d["fusion.weight"], rtol=1e-2)


@pytest.mark.parametrize("optimizer", [None, {"name": "fedadam"}])
def test_a_private_run_goes_on_from_its_checkpoint(optimizer: Any, tiny_shards: Path, tmp_path: Path) -> None:
    chosen = experiment(strategy="dp-mean", federation__optimizer=optimizer, federation__rounds=2)
    short = experiment(strategy="dp-mean", federation__optimizer=optimizer, federation__rounds=1)

    def grid() -> InProcessGrid:
        return InProcessGrid([Site(tiny_shards / "client-0"), Site(tiny_shards / "client-1")])

    Federation(short, grid(), None, RunFolder(tmp_path, short)).run()
    ends = []
    for name in ("one", "two"):
        folder = RunFolder(tmp_path / name, chosen)
        folder.checkpoint = load_checkpoint(tmp_path)
        Federation(chosen, grid(), None, folder).run()
        ends.append(load_file(tmp_path / name / "model.safetensors"))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert read_rounds(tmp_path / "one")[-1]["aggregation"]["privacy"]["rounds"] == 2


def test_epsilon_is_of_the_site_that_took_part_most_often() -> None:
    chosen, updates = private(noise=2.0, delta=1e-6), updates_of([BOTH, AUDIO, BOTH])
    spent = [combine(chosen, part, params(0))[1]["privacy"] for part in (updates, updates[:1], updates[1:])]
    assert [said["rounds"] for said in spent] == [1, 2, 2]
    assert spent[2] == {"epsilon": epsilon(2, 2.0, 1e-6), "delta": 1e-6, "rounds": 2}


def test_variances_of_batch_normalisation_stay_valid() -> None:
    received = {"fusion.running_var": torch.zeros(100), "fusion.weight": torch.zeros(100)}
    got, _ = combine(private(noise=5.0), [Update("site-0", AUDIO, received, 1)], received)
    assert (got["fusion.running_var"] >= 0).all()
    assert (got["fusion.weight"] < 0).any()


@pytest.mark.parametrize("name", ["median", "trimmed-mean", "krum", "dp-mean"])
def test_a_run_records_what_its_strategy_promises(name: str, tiny_shards: Path, tmp_path: Path) -> None:
    chosen = experiment(strategy=name, federation__rounds=2)
    grid = InProcessGrid([Site(tiny_shards / "client-0"), Site(tiny_shards / "client-1")])
    Federation(chosen, grid, None, RunFolder(tmp_path, chosen)).run()
    for line in read_rounds(tmp_path)[1:]:
        assert {block: said["holders"] for block, said in line["aggregation"]["blocks"].items()} == {
            "audio": 2, "image": 1, "shared": 2,
        }  # fmt: skip
    if name == "dp-mean":
        assert line["aggregation"]["privacy"]["epsilon"] == pytest.approx(epsilon(2, 1.0, 1e-5))
    else:
        assert not any(said["tolerated"] for said in line["aggregation"]["blocks"].values())
