"""The `model` and `head` lines: sizes, fresh and given weights, and what is refused."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmjax import lookup
from rmjax.errors import UserError
from rmjax.inference import backbones
from rmjax.models import heads
from rmjax.models import heads as modules
from rmjax.models.transformer import Config, LanguageModel
from rmjax.train import checkpoint
from rmjax.train.state import gather


def made(backbone, head=None, **options):
    module = backbones.reward_model(
        backbone.config, head or modules.Scalar(), backbone.pooling, dtype="float32", **options
    )
    return module, backbones.initialize(module, backbone.weights, jax.random.key(0))


@pytest.fixture(scope="module")
def tiny():
    backbone = backbones.tiny_encoder(width=16, layers=1)
    return backbone, *made(backbone)


def test_small_models_are_of_the_size_asked(tiny):
    backbone, module, params = tiny
    assert (backbone.config.width, backbone.config.layers, backbone.pooling) == (16, 1, "mean")
    assert params["transformer/blocks/up/kernel"].shape == (1, 16, 64)
    assert params["transformer/tokens"].shape == (backbone.tokenizer.vocab_size, 16)
    assert params["head/score/kernel"].shape == (16, 1)
    decoder = backbones.tiny_decoder(width=64, layers=3, pooling="mean")
    assert (decoder.config.kind, backbone.config.kind) == ("decoder", "encoder")
    assert (decoder.config.heads, decoder.config.layers, decoder.pooling) == (2, 3, "mean")


def test_init_comes_from_the_key_and_given_weights_are_put_in_place(tiny):
    backbone, module, params = tiny
    again, other = (backbones.initialize(module, {}, jax.random.key(i)) for i in (0, 1))
    for path, value in params.items():
        np.testing.assert_array_equal(value, again[path])
    assert np.any(params["head/score/kernel"] != other["head/score/kernel"])
    weights = {p: np.full(x.shape, 0.5) for p, x in params.items() if p.startswith("transformer/")}
    given = backbones.initialize(module, weights, jax.random.key(1))
    assert given.keys() == params.keys()
    for path, value in given.items():
        want = weights.get(path, other[path])
        np.testing.assert_array_equal(value, want)
        assert isinstance(value, jax.Array) and value.dtype == jnp.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transformer/tokens": None}, "surplus or of another shape [], missing ['transformer/tokens']"),
        ({"transformer/tokens": np.zeros((3, 16))}, "another shape ['transformer/tokens']"),
        ({"transformer/extra": np.zeros(2)}, "another shape ['transformer/extra']"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_named(tiny, change, message):
    _, module, params = tiny
    weights = {p: np.asarray(x) for p, x in params.items() if p.startswith("transformer/")} | change
    weights = {p: x for p, x in weights.items() if x is not None}
    with pytest.raises(UserError, match=re.escape(message)):
        backbones.initialize(module, weights, jax.random.key(0))


def test_a_stored_head_must_be_the_configs(tiny):
    backbone, _, params = tiny
    stored = {p: np.asarray(x) for p, x in params.items()}
    dense = {"head/dense/kernel": np.full((16, 16), 0.5), "head/dense/bias": np.zeros(16)}
    plain, hidden = (
        backbones.reward_model(
            backbone.config, heads.scalar(heads.Labels(None), hidden=h), "mean", dtype="float32"
        )
        for h in (False, True)
    )
    with pytest.raises(UserError, match="config key 'head'.*head/dense/kernel.*hidden=True"):
        backbones.initialize(plain, stored | dense, jax.random.key(0))
    made = backbones.initialize(hidden, stored | dense, jax.random.key(0))
    np.testing.assert_array_equal(made["head/dense/kernel"], dense["head/dense/kernel"])


def test_heads_follow_the_scale():
    build = lambda name, scale=(-2, 2), ties=False: heads.HEADS[name](heads.Labels(scale, ties))
    assert build("classes").values == (-2.0, -1.0, 0.0, 1.0, 2.0)
    assert build("ordinal").classes == 5
    assert build("scalar", None, True).ties and not build("scalar", None).ties
    assert isinstance(build("gaussian", None), modules.Gaussian)
    for name in ("classes", "ordinal"):
        with pytest.raises(UserError, match="config key 'head'.*give the scale"):
            build(name, None)


def test_attributes_are_those_of_the_data_with_equal_or_given_weights():
    labels = heads.Labels(None, False, ("clear", "kind", "long"))
    third = 1 / 3
    assert heads.attributes(labels).weights == (("clear", third), ("kind", third), ("long", third))
    line = "attributes(weights={'long': -0.5, 'clear': 2})"
    head = lookup.bind(line, heads.HEADS, key="head")(labels)
    assert head.weights == (("clear", 2.0), ("kind", 0.0), ("long", -0.5))
    with pytest.raises(UserError, match=r"names \['short'\]; the data has clear, kind, long"):
        heads.attributes(labels, weights={"short": 1.0})
    with pytest.raises(UserError, match="config key 'head': attributes.. needs texts rated on"):
        heads.attributes(heads.Labels((1, 5)))


def test_mistakes_in_the_model_line_are_named(tmp_path):
    config = backbones.tiny_encoder().config
    with pytest.raises(UserError, match="pooling='max' is none of mean, first, last"):
        backbones.reward_model(config, modules.Scalar(), "max", dtype="float32")
    with pytest.raises(UserError, match="config key 'model': there is no"):
        backbones.pretrained(source=str(tmp_path / "gone"))
    for length in (7, 513):
        with pytest.raises(UserError, match=f"'max_length': {length} is outside 8..512"):
            backbones.longest(config, length)
    assert [backbones.longest(config, n) for n in (8, 512)] == [8, 512]


def test_a_described_config_can_be_built_again():
    config = backbones.tiny_decoder().config
    assert Config(**backbones.describe(config)) == config


def test_a_reward_model_may_start_from_a_trained_policy(tmp_path):
    fresh = backbones.tiny_decoder(width=16, layers=1)
    fresh = fresh._replace(config=dataclasses.replace(fresh.config, tied=False))
    policy = LanguageModel(backbones.transformer(fresh.config, "float32"))
    one = jnp.zeros((1, 1), jnp.int32)
    params = gather(dict(policy.init(jax.random.key(1), one, one, one + 1)))
    about = {
        "config": {"adapter": "none()"}, **fresh.reading(),
        "transformer": backbones.describe(fresh.config), "stop": "</s>", "stop_ids": [2],
    }  # fmt: skip
    critic = {"critic/kernel": jnp.ones(16), "critic_transformer/tokens": jnp.zeros((2, 2))}
    save = lambda name, about: checkpoint.save(
        tmp_path / name / "checkpoints/best", 1, {"params": {**params, **critic}}, about
    )
    save("policy", about)
    found = lookup.bind(
        f"trained(workdir={str(tmp_path / 'policy')!r}, pooling='mean')",
        backbones.MODELS,
        key="model",
    )()
    assert (found.config, found.pooling) == (fresh.config, "mean")
    assert found.tokenizer.to_json() == fresh.tokenizer.to_json()
    _, own = made(found)
    shared = {path for path in params if path.startswith("transformer/")}
    assert {*own} == shared | {"head/score/kernel", "head/score/bias"} and "unembed" in params
    for path in shared:
        np.testing.assert_array_equal(own[path], params[path])
    np.testing.assert_array_equal(
        backbones.finished(str(tmp_path / "policy")).weights["unembed"], params["unembed"]
    )
    save("reward", {k: x for k, x in about.items() if k != "stop"})
    with pytest.raises(UserError, match="is a reward model's run"):
        backbones.trained(workdir=str(tmp_path / "reward"))
