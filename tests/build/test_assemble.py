"""From config lines to a step: each head, groups and given pairs train; seeds are those of single runs."""

import json

import jax
import numpy as np
import pytest

from configs.reward import get_config
from rmjax.build import reward as build
from rmjax.data.synthetic import rated_texts
from rmjax.errors import UserError

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
    chosen = build.plan(c)
    return build.assemble(c, chosen, chosen.records(), "float32")


def losses(parts):
    """The loss of the first steps."""
    state, found = parts.state, []
    for k in range(min(STEPS, len(parts.batches[0]))):
        batch = parts.layout.put_batch(parts.batches[0][k])
        state, means = parts.step(state, parts.frozen, batch)
        found.append(float(means["loss"].value))
    assert int(state.bad_step) == -1
    return found


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    texts = rated_texts(120, seed=2)
    rows = []
    for i in range(0, 120, 2):
        worse, better = sorted(texts[i : i + 2], key=lambda r: r.rating)
        row = {"prompt": f"{i}?", "chosen": better.text, "rejected": worse.text, "margin": 0.5}
        rows.append(row | {"votes": [3, 1]})
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
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_head_and_kind_of_pair_trains(case, pairs):
    lines, begin = CASES[case]
    found = losses(assemble(**({"data": pairs} if case == "pairs" else {}), **lines))
    if begin is not None:
        assert found[0] == pytest.approx(begin, abs=0.3)
    assert np.mean(found[-3:]) < np.mean(found[:3])


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
    chosen = build.plan(config())
    first, again = (build.hashes(chosen.records()) for _ in range(2))
    other = build.hashes(build.plan(config(data="synthetic_ratings(count=60, seed=1)")).records())
    assert first == again and not {*first.values()} & {*other.values()}
