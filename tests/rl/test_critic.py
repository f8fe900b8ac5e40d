"""Critics: what they offer, and that one that starts from a reward model begins as its scores."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.policy import get_config
from rmjax.data.tokenizer import Tokenizer
from rmjax.errors import UserError
from rmjax.inference import backbones, run_folder
from rmjax.models import heads
from rmjax.models.transformer import LanguageModel
from rmjax.rl import critic
from rmjax.train import checkpoint, state

POLICY = backbones.tiny_decoder(width=16, layers=1)
SHAPE = dataclasses.replace(POLICY.config, width=32)  # the reward model's own
CONFIG = {"seeds": 1, "head": "scalar()", "adapter": "none()", "normalize": "standardize()"}
ABOUT = {
    "config": CONFIG, "tokenizer": POLICY.tokenizer.to_json(), "pooling": "last",
    "transformer": backbones.describe(SHAPE),
}  # fmt: skip
REWARD = backbones.reward_model(SHAPE, heads.Scalar(), "last", dtype="float32")
TOKENS = jnp.asarray(np.random.default_rng(0).integers(3, 200, (2, 7)).astype(np.int32))
PLACES = jnp.broadcast_to(jnp.arange(7, dtype=jnp.int32), TOKENS.shape)
READ = (TOKENS, PLACES, jnp.ones_like(TOKENS))


def saved(home, **changed):
    """The folder of a reward model's run, its description changed; and its parameters."""
    params = backbones.initialize(REWARD, {}, jax.random.key(3))
    params = {k: 2 * x for k, x in params.items()} | {"head/score/bias": jnp.array([0.7])}
    checkpoint.save(home / "checkpoints/best", 1, {"params": params}, {**ABOUT, **changed})
    run_folder.write_json(home / "checkpoints/normalization.json", {"mean": [0.5], "scale": [4.0]})
    return params


def test_values_start_as_the_normalized_scores_of_what_is_read_so_far(tmp_path):
    params = saved(tmp_path)
    own = critic.value(workdir=str(tmp_path))
    found = critic.start(own, POLICY)
    language = LanguageModel(backbones.transformer(POLICY.config, "float32", dropout=0.5))
    module = critic.module(own, found, language, "float32", remat=False)
    start = backbones.initialize(module, POLICY.weights, jax.random.key(0))
    assert {k: start[k].shape for k in found.params} == {
        k: x.shape for k, x in found.params.items()
    }
    assert {k for k in start if k.startswith("critic")} == {*found.params}
    made = state.collections({**start, **found.params})
    values = module.apply(made, *READ, PLACES)["values"]
    scores = REWARD.apply(state.collections(params), *READ, PLACES)["score"]
    np.testing.assert_allclose(values, (scores - 0.5) / 4, rtol=1e-4, atol=1e-5)
    assert np.ptp(np.asarray(values)) > 0.1
    plain = language.apply(state.collections(start), *READ)[0]
    np.testing.assert_allclose(module.apply(made, *READ, PLACES)["logits"], plain, atol=1e-5)


def test_without_a_reward_model_critics_say_nothing_at_first():
    language = LanguageModel(backbones.transformer(POLICY.config, "float32"))
    size = POLICY.tokenizer.vocab_size
    for own, name, shape in (
        (critic.value(), "values", (2, 7)),
        (critic.q(), "action_values", (2, 7, size)),
    ):
        assert critic.start(own, POLICY) is None
        module = critic.module(own, None, language, "float32", remat=False)
        start = backbones.initialize(module, {}, jax.random.key(0))
        found = module.apply(state.collections(start), *READ, PLACES)[name]
        assert found.shape == shape and not np.any(found)
        slope = jax.grad(
            lambda p, m=module, n=name: m.apply(state.collections(p), *READ, PLACES)[n].sum()
        )
        assert any(np.any(x != 0) for k, x in slope(start).items() if k.startswith("critic"))
    none = critic.module(critic.none(), None, language, "float32", remat=False)
    assert {*none.apply(state.collections(start), *READ, PLACES)} == {"logits"}


ANOTHER = Tokenizer.bpe(["a few words of another vocabulary"] * 9, 270).to_json()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tokenizer": ANOTHER}, "another tokenizer than the policy"),
        ({"pooling": "mean"}, "of kind decoder and pooling mean"),
        ({"config": {**CONFIG, "seeds": 3}}, "holds 3 seeds"),
        ({"config": {**CONFIG, "head": "gaussian()"}}, "head='gaussian()'; a critic starts from scalar()"),
        ({"transformer": {**backbones.describe(SHAPE), "max_positions": 9}}, "has 9 positions, the policy 512"),
        ({"transformer": {**backbones.describe(SHAPE), "kind": "encoder"}}, "of kind encoder"),
    ],
)  # fmt: skip
def test_reward_models_that_are_no_start_are_refused(tmp_path, changed, message):
    saved(tmp_path, **changed)
    with pytest.raises(UserError) as error:
        critic.start(critic.value(workdir=str(tmp_path)), POLICY)
    assert message in str(error.value) and "config key 'critic'" in str(error.value)


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match="'critic': .* holds no checkpoints/best"):
        critic.start(critic.value(workdir=str(tmp_path)), POLICY)
    about = {k: x for k, x in ABOUT.items() if k != "pooling"}
    checkpoint.save(tmp_path / "checkpoints/best", 1, {"params": {"x": jnp.ones(2)}}, about)
    with pytest.raises(UserError, match="is a language model's run"):
        critic.start(critic.value(workdir=str(tmp_path)), POLICY)


def test_returns_are_those_of_the_critic():
    c = get_config("tiny_q_values")
    assert critic.plan(c).offers == ("values", "q")
    c.returns = "gae()"
    with pytest.raises(UserError, match="'returns': critic='q.*' does not learn from 'gae"):
        critic.plan(c)
    c.update({"critic": "value()", "returns": "expected_sarsa()"})
    with pytest.raises(UserError, match="'returns': critic='value.*' does not learn from 'expected_sarsa"):  # fmt: skip
        critic.plan(c)
    c.update({"critic": "none()", "returns": "gae()"})
    assert critic.plan(c) == critic.none()
    c.critic = "values()"
    with pytest.raises(UserError, match="'critic': there is no 'values'; did you mean 'value'"):
        critic.plan(c)


@pytest.mark.parametrize("name", ["tiny_q_values", "tiny_rloo"])
def test_only_a_critic_of_states_says_what_a_cut_text_is_worth(name):
    c = get_config(name)
    c.bootstrap = True
    with pytest.raises(UserError, match=r"'bootstrap': .* is said by critic='value\(\)', not"):
        critic.plan(c)


def test_episodes_end_where_they_end():
    c = get_config("tiny_game")
    c.update({"bootstrap": True, "critic": "value()"})
    with pytest.raises(UserError, match="'bootstrap': an episode ends after its turns"):
        critic.plan(c)
