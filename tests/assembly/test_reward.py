"""From config lines to a step: each head, groups and given pairs train; seeds are those of single runs."""

import json

import jax
import numpy as np
import pytest

from configs.reward import get_config
from rmjax.assembly import reward as assembly
from rmjax.assembly import training
from rmjax.data.synthetic import rated_texts
from rmjax.errors import UserError
from rmjax.inference import backbones
from rmjax.models import attention, lora
from rmjax.train import forward

STEPS = 12


def config(**lines):
    c = get_config("tiny")
    c.update({
        "parallel": "one_device()", "model": "tiny_encoder(width=8, layers=1)", "data": "synthetic_ratings(count=60)",
        "schedule": "constant(peak=2e-2)", "epochs": 6.0, "batch_size": 8, **lines,
    })  # fmt: skip
    return c


def assemble(**lines):
    c = config(**lines)
    chosen = assembly.plan(c)
    return assembly.assemble(c, chosen, chosen.records(), "float32")


def assemble_pretrained(**lines):
    """The same on a transformer whose weights are given."""
    c = config(**lines)
    chosen, base = assembly.plan(c), assemble(seed=7)
    given = {k: np.asarray(v) for k, v in base.state.params.items() if k.startswith("transformer/")}
    backbone = base.backbone._replace(weights=given)
    chosen = chosen._replace(backbone=lambda: backbone)
    return assembly.assemble(c, chosen, chosen.records(), "float32"), given


def losses(parts):
    """The loss of the first steps."""
    state, found = parts.state, []
    for k in range(min(STEPS, len(parts.batches[0]))):
        batch = parts.layout.put_batch(parts.batches[0][k])
        state, means = parts.step(state, parts.frozen, batch)
        found.append(float(np.ravel(means["loss"].value)[0]))  # pmap has one a device, all equal
    assert np.all(np.asarray(state.bad_step) == -1)
    return found


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    texts = rated_texts(120, seed=2)
    rows = []
    for i in range(0, 120, 2):
        worse, better = sorted(texts[i : i + 2], key=lambda r: r.rating)
        row = {"prompt": f"{i}?", "chosen": better.text, "rejected": worse.text, "margin": 0.5}
        rows.append(row | {"votes": [3, 1, i % 4]})
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"file(path={str(path)!r})"


# Lines -> the loss before training, where a closed form gives it (all scores are near 0 then).
CASES = {
    "classes": ({"head": "classes()", "loss": "votes()"}, np.log(9)),
    "ordinal": ({"head": "ordinal()", "loss": "ordinal()"}, None),
    "gaussian": ({"head": "gaussian()", "loss": "gaussian_nll()"}, None),
    "groups": ({"group_size": 4, "batch_size": 2, "loss": "bradley_terry()", "pair_arrays": "target"}, np.log(2)),
    "ties": ({"group_size": 4, "batch_size": 2, "loss": "rao_kupper()", "pair_arrays": "tie"}, None),
    "pairs": ({"loss": "bradley_terry()", "pair_arrays": "margins"}, np.log1p(np.exp(0.5))),
    "given pairs with ties": ({"loss": "rao_kupper()", "pair_arrays": "tie"}, None),
}  # fmt: skip


@pytest.mark.parametrize("parallel", ["one_device()", "pmap()", "mesh(data=4, tensor=2)"])
def test_training_on_listed_tiles_is_training_on_whole_rows(parallel, monkeypatch):
    lines = {"loss": "bradley_terry()", "group_size": 4, "batch_size": 6}
    monkeypatch.setattr(attention, "TILE", 10_000)
    whole = assemble(**lines)
    monkeypatch.setattr(attention, "TILE", 32)
    listed = assemble(**lines, parallel=parallel)
    assert "tiles" in listed.batches[0][0] and "tiles" not in whole.batches[0][0]
    np.testing.assert_allclose(losses(listed), losses(whole), rtol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_every_head_and_kind_of_pair_trains(case, pairs):
    lines, begin = CASES[case]
    found = losses(assemble(**({"data": pairs} if "pairs" in case else {}), **lines))
    if begin is not None:
        assert found[0] == pytest.approx(begin, abs=0.3)
    assert np.mean(found[-3:]) < np.mean(found[:3])


# By kind: fields of a record, lines that train on them, and about the loss before training, where scores are small.
GOOD, BAD = "good fine great", "bad poor awful"
KINDS = {
    "rankings": (
        {"prompt": "Which?", "completions": [BAD, GOOD, f"{GOOD} {BAD}"], "ranks": [3, 1, 2]},
        {"loss": "plackett_luce()", "model": "tiny_decoder(width=8, layers=1)"},
        np.log(3) + np.log(2),
    ),
    "processes": (
        {"prompt": "Well?", "steps": [GOOD, BAD], "labels": [1, 0]},
        {"loss": "process()", "model": "tiny_decoder(width=8, layers=1)"},
        np.log(2),
    ),
    "attributes": (
        {"response": GOOD, "clear": 1.0, "long": -1.0},
        {"loss": "attributes_mse()", "head": "attributes()"},
        1.0,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_rankings_processes_and_attributes_train(kind, tmp_path):
    fields, lines, begin = KINDS[kind]
    first = next(iter(fields))
    rows = [{**fields, first: f"{fields[first]} {i}", "document": f"{i}"} for i in range(60)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = losses(assemble(data=f"file(path={str(path)!r})", max_length=128, **lines))
    assert found[0] == pytest.approx(begin, abs=0.6)
    assert np.mean(found[-3:]) < np.mean(found[:3]) - 0.05


def test_steps_need_the_last_token_pooled(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"{i}", "steps": ["a"], "labels": [1]} for i in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match="set pooling='last'"):
        assemble(data=f"file(path={str(path)!r})", loss="process()")


def test_frozen_parameters_get_no_state_and_rates_must_match():
    parts = assemble(frozen="^transformer/")
    assert all(name.startswith("head/") for name in parts.state.params)
    assert all(name.startswith("transformer/") for name in parts.frozen)
    moments = [x for x in jax.tree.leaves(parts.state.opt_state) if np.ndim(x)]
    assert sum(x.size for x in moments) == 2 * sum(x.size for x in parts.state.params.values())
    with pytest.raises(UserError, match="'frozen'.* start at random, and all seeds would share"):
        assemble(frozen="^transformer/tokens", seeds=2)
    with pytest.raises(UserError, match="'rates'"):
        assemble(rates='{"^nothing": 0.5}')


def test_adapters_and_the_head_alone_are_trained_and_merging_them_gives_the_same_scores():
    parts, given = assemble_pretrained(adapter="lora(rank=2, targets='attention/(query|value)$')")
    trained = set(parts.state.params)
    assert {k for k in trained if not k.startswith("lora/")} == {
        "head/score/kernel",
        "head/score/bias",
    }
    assert {k for k in trained if k.startswith("lora/")} == {
        f"lora/transformer/blocks/attention/{at}/{name}"
        for at in ("query", "value")
        for name in "ab"
    }
    for path, value in given.items():
        np.testing.assert_array_equal(parts.frozen[path], value)
    moments = [x for x in jax.tree.leaves(parts.state.opt_state) if np.ndim(x)]
    assert sum(x.size for x in moments) == 2 * sum(x.size for x in parts.state.params.values())
    state = parts.state
    for k in range(8):
        batch = parts.layout.put_batch(parts.batches[0][k])
        state, means = parts.step(state, parts.frozen, batch)
    assert np.abs(state.params["lora/transformer/blocks/attention/query/b"]).max() > 1e-3
    adapted = forward.scores(parts.module.apply)(state.params, parts.frozen, batch, None)["score"]
    adapter = backbones.lora(rank=2)
    merged = lora.merge({**state.params, **parts.frozen}, adapter)
    assert merged.keys() == given.keys() | {"head/score/kernel", "head/score/bias"}
    plain = assemble().module
    alone = forward.scores(plain.apply)(merged, {}, batch, None)["score"]
    np.testing.assert_allclose(alone, adapted, rtol=1e-4, atol=1e-5)


def test_seeds_over_adapters_share_the_frozen_weights():
    parts, given = assemble_pretrained(adapter="lora(rank=2)", seeds=3)
    for path, value in given.items():
        assert parts.frozen[path].shape == value.shape
    a = parts.state.params["lora/transformer/blocks/up/a"]
    assert a.shape[0] == 3 and np.any(a[0] != a[1])
    state, means = parts.state, {}
    for k in range(3):
        batch = {n: np.stack([b[k][n] for b in parts.batches]) for n in parts.batches[0][k]}
        state, means = parts.step(state, parts.frozen, parts.layout.put_batch(batch))
    assert len(set(np.asarray(means["loss"].value).tolist())) == 3


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        ("lora(targets='nowhere')", "targets='nowhere' finds no projection; there are"),
        ("lora(targets='(')", r"targets='\('"),
        ("lora(rank=0)", "rank of 1 or more"),
        ("lora(dropout=1.0)", r"dropout in \[0, 1\)"),
    ],
)
def test_adapters_that_cannot_be_are_refused(adapter, message):
    with pytest.raises(UserError, match=f"'adapter': .*{message}"):
        assemble(adapter=adapter)


def test_the_scale_of_an_adapter_is_alpha_over_its_rank_or_the_root_of_that():
    assert backbones.lora(rank=4, alpha=8.0).scale == 2.0
    assert backbones.lora(rank=4, alpha=8.0, rank_stabilized=True).scale == 4.0


def test_streams_of_seeds_are_those_of_single_runs():
    two = assemble(seeds=2, dropout=0.1)
    alone = assemble(seed=1, dropout=0.1)
    for name, value in alone.state.params.items():
        np.testing.assert_array_equal(two.state.params[name][1], value)
    np.testing.assert_array_equal(two.state.rng[1], alone.state.rng)
    assert not np.array_equal(two.state.rng[0], two.state.rng[1])
    for one, other in zip(two.batches[1].plans, alone.batches[0].plans, strict=True):
        assert [[g.tolist() for g in b] for b in one] == [[g.tolist() for g in b] for b in other]


def test_data_hashes_follow_every_field():
    chosen = assembly.plan(config())
    first, again = (training.hashes(chosen.records()) for _ in range(2))
    other = training.hashes(
        assembly.plan(config(data="synthetic_ratings(count=60, seed=1)")).records()
    )
    assert first == again and not {*first.values()} & {*other.values()}
