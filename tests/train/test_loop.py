"""The loop on a problem of one number: what it logs, saves, stops at, and that a broken run is an unbroken one."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmjax.mean import Mean
from rmjax.models import shardings
from rmjax.train import checkpoint, loop, metrics
from rmjax.train.parallel import one_device
from rmjax.train.state import State

STEPS = 12
LAYOUT = one_device(shardings.spec, 1)


def batch(k, poison):
    x = np.float32(np.nan if k == poison else np.sin(k))
    return {"x": x, "segments": np.ones(4), "text_weight": np.array([1.0, 1.0, 0.0])}


def descend(state, frozen, batch):
    gradient = state.params["w"] - batch["x"]
    good = jnp.isfinite(gradient).all() & (state.bad_step < 0)
    new = {"w": jnp.where(good, state.params["w"] - 0.1 * gradient, state.params["w"])}
    bad = jnp.where(good | (state.bad_step >= 0), state.bad_step, state.step)
    weight = state.step + 1.0
    return state.replace(params=new, step=state.step + 1, bad_step=bad), {
        "loss": Mean(weight * state.step, weight)
    }


STEP = LAYOUT.compile_step(descend)


def train(folder, *, at=None, every=loop.Every(4, 6, 3), poison=None, validate=None, layout=LAYOUT):  # noqa: B008
    def batches(start):
        for k in range(start, STEPS):
            if at and k in at:
                at[k]()
            yield batch(k, poison)

    zero = lambda: jnp.zeros((), jnp.int32)
    state = State(zero(), {"w": jnp.ones(())}, (), jnp.zeros(2, jnp.uint32), zero() - 1)
    return loop.train(
        STEP, LAYOUT.put(state), {}, batches, layout, steps=STEPS, folder=folder, every=every,
        validate=validate or (lambda state: {"validation/w": float(state.params["w"])}),
        best_metric="validation/w", describe={"note": "kept"}, progress=lambda step, values: None,
    )  # fmt: skip


def raises(error):
    raise error


def scalars(folder):
    """Lines of metrics.jsonl without the one figure that is measured."""
    return [{k: v for k, v in x.items() if k != "tokens_per_second"} for x in metrics.read(folder)]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    return folder, train(folder)


def final(folder):
    return checkpoint.restore(folder / "checkpoints/last")["params"]["w"]


def test_logs_are_weighted_means_of_their_window(unbroken):
    lines = [x for x in scalars(unbroken[0]) if "train/loss" in x]
    # Each of log, validation and save closes a window; step k has weight k + 1 and value k.
    edges = [0, 3, 4, 6, 8, 9, 12]
    want = [np.average(np.arange(a, b), weights=np.arange(a, b) + 1) for a, b in zip(edges, edges[1:])]  # noqa: B905  # fmt: skip
    assert [x["step"] for x in lines] == edges[1:]
    np.testing.assert_allclose([x["train/loss"] for x in lines], want, rtol=1e-6)


def test_tally_leaves_the_compiled_step_out(unbroken):
    tally = unbroken[1]
    assert (tally.steps, tally.tokens, tally.examples) == (STEPS, 4 * 11, 2 * 11)
    assert tally.seconds > 0 and tally.compile_seconds > 0


def test_last_and_best_are_kept_apart(tmp_path):
    highest_at_6 = lambda state: {"validation/w": -abs(float(state.step) - 6)}
    train(tmp_path, validate=highest_at_6)
    assert checkpoint.latest(tmp_path / "checkpoints/last") == STEPS
    assert checkpoint.latest(tmp_path / "checkpoints/best") == 6
    about = checkpoint.about(tmp_path / "checkpoints/best")
    assert (about["value"], about["metric"], about["note"]) == (0, "validation/w", "kept")


@pytest.mark.parametrize("moments", [(1,), (5,), (8, 4), (11, 11, 2)])
def test_a_killed_run_ends_as_the_unbroken_one(tmp_path, unbroken, moments):
    for moment in moments:
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, at={max(moment, _start(tmp_path)): lambda: raises(KeyboardInterrupt())})
    tally = train(tmp_path)
    np.testing.assert_array_equal(final(tmp_path), final(unbroken[0]))
    assert scalars(tmp_path) == scalars(unbroken[0])
    assert tally.steps == STEPS  # what was trained twice counts once


def _start(folder):
    return checkpoint.latest(folder / "checkpoints/last") or 0


def test_a_kill_between_best_and_last_changes_nothing(tmp_path, unbroken, monkeypatch):
    save = checkpoint.save
    with monkeypatch.context() as patched:
        dying = lambda folder, step, *rest: raises(KeyboardInterrupt()) if folder.name == "last" and step == 6 else save(folder, step, *rest)  # noqa: E501  # fmt: skip
        patched.setattr(checkpoint, "save", dying)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    train(tmp_path)
    best = lambda folder: checkpoint.restore(folder / "checkpoints/best")["params"]["w"]
    np.testing.assert_array_equal(best(tmp_path), best(unbroken[0]))
    np.testing.assert_array_equal(final(tmp_path), final(unbroken[0]))
    assert scalars(tmp_path) == scalars(unbroken[0])


def test_sigterm_saves_at_once_and_goes_on(tmp_path, unbroken):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(loop.Stopped, match=f"after step 5 of {STEPS}"):
        train(tmp_path, at={4: lambda: os.kill(os.getpid(), signal.SIGTERM)})
    assert signal.getsignal(signal.SIGTERM) is before
    assert checkpoint.latest(tmp_path / "checkpoints/last") == 5
    train(tmp_path)
    np.testing.assert_array_equal(final(tmp_path), final(unbroken[0]))
    steps = [x["step"] for x in scalars(tmp_path) if "train/loss" in x]
    assert steps == [3, 4, 5, 6, 8, 9, 12]


def test_sigterm_amid_a_validation_is_saved_with_the_next_step(tmp_path):
    def validate(state):
        os.kill(os.getpid(), signal.SIGTERM)
        return {"validation/w": 0.0}

    with pytest.raises(loop.Stopped, match=f"after step 6 of {STEPS}; saved"):
        train(tmp_path, every=loop.Every(100, 5, 100), validate=validate)
    assert checkpoint.latest(tmp_path / "checkpoints/last") == 6


@pytest.mark.parametrize(("poison", "kept"), [(0, None), (2, None), (4, 3), (11, 9)])
def test_a_bad_state_is_never_saved(tmp_path, poison, kept):
    with pytest.raises(loop.Diverged) as error:
        train(tmp_path, poison=poison)
    assert (error.value.step, error.value.seed) == (poison, 0)
    assert checkpoint.latest(tmp_path / "checkpoints/last") == kept
    if kept:
        assert np.isfinite(final(tmp_path))
    assert all(x["step"] <= poison for x in scalars(tmp_path))


def test_the_first_seed_to_diverge_is_named(tmp_path):
    seeds = LAYOUT._replace(value=lambda bad_step: np.array([-1, 9, 2, 5]))
    with pytest.raises(loop.Diverged) as error:
        train(tmp_path, layout=seeds)
    assert (error.value.step, error.value.seed) == (2, 2)


def test_a_finished_run_is_not_trained_further(unbroken):
    state = final(unbroken[0])
    lines = scalars(unbroken[0])
    assert train(unbroken[0]).steps == STEPS
    np.testing.assert_array_equal(final(unbroken[0]), state)
    assert scalars(unbroken[0]) == lines


def test_a_part_may_be_made_of_the_parameters_once_it_is_its_turn(tmp_path):
    seen = []

    def prepare(params, carry, k):
        def later(now):
            seen.append((float(params), float(now["w"])))
            return [batch(k, None), batch(k, None)]

        params = np.asarray(params["w"]).copy()
        return [batch(k, None), later], carry, {}

    zero = lambda: jnp.zeros((), jnp.int32)
    state = State(zero(), {"w": jnp.ones(())}, (), jnp.zeros(2, jnp.uint32), zero() - 1)
    tally = loop.train(
        STEP, LAYOUT.put(state), {}, lambda k: range(k, 3), LAYOUT, steps=3, folder=tmp_path, every=loop.Every(1, 3, 3),
        validate=lambda state: {"validation/w": 0.0}, best_metric="validation/w", describe={},
        progress=lambda step, values: None, prepare=prepare,
    )  # fmt: skip
    assert tally.steps == 9 and len(seen) == 3
    for k, (before, now) in enumerate(seen):
        assert now == pytest.approx(before - 0.1 * (before - np.sin(k)), rel=1e-5)


def test_an_update_is_over_before_the_next_one_begins():
    slow = jax.jit(lambda x: jax.lax.fori_loop(0, 200, lambda _, y: jnp.tanh(y @ y), x))
    zero = jnp.zeros((), jnp.int32)
    state = State(zero, {"w": slow(jnp.eye(400))}, (), jnp.zeros(2, jnp.uint32), zero - 1)
    loop._settle(state, usual=np.inf)
    assert state.params["w"].is_ready()


def test_a_batch_is_placed_once_the_update_before_is_over(tmp_path, monkeypatch):
    order, settle = [], loop._settle
    monkeypatch.setattr(loop, "_settle", lambda *args: (order.append("over"), settle(*args)))
    place = lambda batch: (order.append("placed"), LAYOUT.put_batch(batch))[1]
    train(tmp_path, layout=LAYOUT._replace(put_batch=place))
    assert order == ["over", "placed"] * STEPS


def test_memory_goes_back_where_a_run_holds_far_more_than_after_its_first_step(
    tmp_path, monkeypatch
):
    asked = []
    monkeypatch.setattr(loop.memory, "resident", lambda: 1000)
    monkeypatch.setattr(loop.memory, "release", lambda beyond: asked.append(beyond))
    train(tmp_path)
    assert asked == [np.inf] + [1750.0] * (STEPS - 1)
