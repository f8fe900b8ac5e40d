"""relaxed(): the reward model's own score forward, a gradient to the policy alone backward, refusals, a whole run."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import policy as policy_config
from configs import reward as reward_config
from rmjax.assembly import policy as assembly
from rmjax.data.records import RatedText
from rmjax.errors import UserError
from rmjax.inference import backbones, scoring
from rmjax.models import relaxation
from rmjax.rl import packing, relaxed
from rmjax.runs import optimize_policy, train_reward
from rmjax.sampling.generate import Samples
from rmjax.train import checkpoint, forward, metrics

SMALL = {
    "policy": "tiny_decoder(width=16, layers=1)", "data": "synthetic_logs(count=40)", "parallel": "one_device()",
    "dtype": "float32", "batch_size": 4, "max_length": 64, "max_new_tokens": 6, "validation_prompts": 4,
    "test_prompts": 4, "log_every": 1,
}  # fmt: skip
ANSWERS = ["a", "fine", "dull"]  # of each prompt; the last is cut by length
STOP = 2


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """The folder of a policy's run by likelihood."""
    home = tmp_path_factory.mktemp("start") / "run"
    optimize_policy.run(config=config("tiny", epochs=0.5), workdir=str(home))
    return home


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, start):
    """The folder of a reward model on that policy's transformer."""
    home = tmp_path_factory.mktemp("evaluated") / "run"
    c = reward_config.get_config("tiny")
    c.update({
        "model": f"trained(workdir={str(start)!r})", "parallel": "one_device()", "dtype": "float32", "epochs": 1.0,
        "normalize": "standardize()", "data": "synthetic_ratings(count=60)", "max_length": 64,
    })  # fmt: skip
    train_reward.run(config=c, workdir=str(home))
    return home


def config(name, **lines):
    c = policy_config.get_config(name)
    c.update({**SMALL, **lines})
    return c


def assembled(chosen):
    plan = assembly.plan(chosen)
    loaded = assembly.prompted(plan, plan.records())
    found, reads = assembly.backbone(chosen, plan, loaded)
    frozen = relaxed.load(chosen, reads, loaded.train, whole=plan.words > 0)
    return assembly.assemble(chosen, plan, loaded, found, reads, "float32", None, frozen), frozen


@pytest.fixture(scope="module")
def written(start, evaluated):
    """Parts of a relaxed run of three samples a prompt, its reward model, and a batch that can be read back."""
    lines = {
        "policy": f"trained(workdir={str(start)!r})",
        "reward_model": str(evaluated),
        "samples": 3,
    }
    parts, frozen = assembled(config("tiny_relaxed", **lines))
    assert parts.rollouts is not None
    item, tokenizer = parts.rollouts.item(0), parts.backbone.tokenizer
    tokens, lengths = np.zeros((4, 3, 6), np.int32), np.zeros((4, 3), np.int32)
    for k, answer in enumerate(ANSWERS):
        own = [*tokenizer.encode([answer], 99)[0][1:-1], *([STOP] if k < 2 else [])]
        tokens[:, k, : len(own)], lengths[:, k] = own, len(own)
    samples = Samples(tokens, np.zeros(tokens.shape, np.float32), lengths, lengths != 4)
    examples = packing.joined(packing.as_examples(samples, item.prompts), item.data)
    batch = packing.lay(examples, 4, parts.rollouts.bounds)
    batch = {k: jnp.asarray(x) for k, x in batch.items()}
    return parts, frozen, item.prompts, batch


def test_the_reward_is_the_models_own_score_of_the_text(written, evaluated):
    parts, frozen, prompts, batch = written
    assert "branches" in batch and frozen.scale != 1
    run = forward.language(parts.module.apply, relaxed=relaxed.reward(frozen, 1.0))
    both = {**parts.frozen, **parts.asked}
    got = run(parts.state.params, both, batch, jax.random.key(3))["relaxed_reward"]
    where = packing.Places.of({k: np.asarray(x) for k, x in batch.items()}, 12, 6)
    asked = [RatedText("", "", "", a, 0.0, prompt=p) for p in prompts.texts for a in ANSWERS]
    want = scoring.load(evaluated).records(asked)[0]
    assert np.ptp(want) > 1e-2
    np.testing.assert_allclose(got[where.text_row, where.text_at], want, rtol=1e-5, atol=1e-5)


def test_the_model_reads_one_stop_behind_every_answer_or_none(written):
    _, frozen, _, batch = written
    assert frozen.reads_stop and frozen.stop == STOP
    real = np.asarray(batch["text_weight"]) > 0
    embedded = jnp.zeros((*batch["tokens"].shape, 16))
    at = lambda x, where: np.take_along_axis(np.asarray(x), np.asarray(where), axis=1)[real]
    read, ends = relaxed._reading(frozen, batch, embedded, jnp.ones(16))
    assert np.all(at(read["tokens"], ends) == STOP)
    read, ends = relaxed._reading(frozen._replace(reads_stop=False), batch, embedded, jnp.ones(16))
    cut = at(batch["tokens"], batch["score_at"]) != STOP
    assert cut.sum() == 4 and np.all(at(read["tokens"], ends) != STOP)
    np.testing.assert_array_equal(np.asarray(batch["score_at"] - ends)[real], ~cut)


def test_the_gradient_is_that_of_soft_tokens_and_of_samples_alone(written):
    """Against finite differences of the reward model on embeddings that move as the softmax does."""
    parts, frozen, _, batch = written
    params, key = {k: jnp.asarray(x) for k, x in frozen.params.items()}, jax.random.key(5)
    inputs, variables = (
        (batch[n] for n in forward.LANGUAGE_INPUTS),
        forward.collections(parts.state.params),
    )
    logits = parts.module.apply(variables, *inputs, branches=batch["branches"])["logits"]
    real = jnp.asarray(batch["text_weight"] > 0)
    ask = relaxed.reward(frozen, 0.7)
    total = lambda params, x: jnp.sum(jnp.where(real, ask(params, batch, x, key), 0.0))
    slope = jax.grad(total, argnums=1)(params, logits)
    counted = np.asarray(batch["token_weight"]) > 0
    assert np.any(slope[counted] != 0) and not np.any(slope[~counted])

    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["row"])
    token = jnp.take_along_axis(batch["tokens"], batch["target_at"], axis=1)
    noise = jax.vmap(relaxation.noise_of)(keys, logits, token)
    table, rows = params["transformer/tokens"], jnp.arange(len(token))[:, None]
    soft = lambda x: jax.nn.softmax((x + noise) / 0.7) @ table
    toward = jax.random.normal(jax.random.key(6), logits.shape)

    def moved(step):
        more = jnp.where(counted[..., None], soft(logits + step * toward) - soft(logits), 0.0)
        embedded = table[batch["tokens"]].at[rows, batch["target_at"]].add(more)
        read, at = relaxed._reading(frozen, batch, embedded, table[STOP])
        made = frozen.apply(forward.collections(params), score_at=at, **read)["score"]
        return float(jnp.sum(jnp.where(real, made, 0.0))) / frozen.scale

    want = (moved(0.05) - moved(-0.05)) / 0.1
    assert float(jnp.vdot(slope, toward)) == pytest.approx(want, rel=2e-2)


def test_a_run_learns_and_holds_a_policy_alone(tmp_path, start, evaluated):
    lines = {"policy": f"trained(workdir={str(start)!r})", "reward_model": str(evaluated)}
    home = tmp_path / "run"
    results = optimize_policy.run(config=config("tiny_relaxed", **lines), workdir=str(home))
    assert results["finished"] and "gain/reward" in results["metrics"]
    told = [line for line in metrics.read(home) if "train/relaxed" in line]
    assert all(math.isfinite(line["train/relaxed"]) for line in told)
    assert not (home / "checkpoints/frozen").exists()
    assert not any("asked" in k for k in checkpoint.restore(home / "checkpoints/best")["params"])
    assert backbones.finished(str(home)).config.vocab_size == 259


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ({"reward_model": ""}, "'' is no finished run's folder"),
        ({"reward_model": "START"}, "is a language model's"),
        ({"policy": "gpt(vocabulary=300)"}, "has another one"),
        ({"max_new_tokens": 100}, "tokens of up to 125"),
    ],
)
def test_a_reward_model_of_another_vocabulary_is_refused(start, evaluated, lines, message):
    lines = {"reward_model": str(evaluated), **lines}
    lines["reward_model"] = lines["reward_model"].replace("START", str(start))
    with pytest.raises(UserError) as error:
        assembled(config("tiny_relaxed", **lines))
    assert "'reward_model': relaxed() differentiates a reward model of the" in str(error.value)
    assert message in str(error.value)


def test_an_encoder_is_refused(rated):
    with pytest.raises(UserError, match="is of kind 'encoder' and pools by 'mean'"):
        assembled(config("tiny_relaxed", reward_model=str(rated[0])))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ({"rollout_epochs": 2}, "'rollout_epochs', 'minibatches': relaxed() learns from samples of the policy as it"),
        ({"relaxation": 0.0}, "'relaxation': must be positive, got 0.0"),
        ({"reward": "none()"}, "'reward': samples are learned from by their reward"),
    ],
)  # fmt: skip
def test_lines_that_do_not_go_with_it_are_refused(lines, message):
    with pytest.raises(UserError) as error:
        assembly.plan(config("tiny_relaxed", **lines))
    assert message in str(error.value)
