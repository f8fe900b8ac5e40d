"""Reward models that come as Hugging Face folders, exported here or made elsewhere, as scorers."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from rmjax.build import model
from rmjax.data import pipeline
from rmjax.data.encode import Reader
from rmjax.errors import UserError
from rmjax.models import heads, implicit, shardings
from rmjax.models.transformer import LanguageModel, Transformer
from rmjax.runs import scoring
from rmjax.train import parallel


def load(source: str, *, reference: str = "", beta: float = 0.1) -> scoring.Scorer:
    """A sequence classifier; or, with a reference, the implicit reward of a language model tuned from it.

    source, reference: as `pretrained` of a config's model line.
    beta: the coefficient that the policy was tuned with.
    Raises: UserError where the folders hold no such models.
    """
    for each in (source, reference):
        if (Path(each) / "checkpoints").is_dir():
            raise UserError(
                f"{each} is a run's folder, not a Hugging Face folder: of a reward model, name it with --workdir; or "
                f"export it first (experiments.export --workdir={each} --output=...)"
            )
    return _implicit(source, reference, beta) if reference else _classifier(source)


def _classifier(source: str) -> scoring.Scorer:
    backbone = model.pretrained(source=source)
    paths = [path for path in backbone.weights if path.startswith("head/")]
    if not paths:
        raise UserError(
            f"--model={source!r} has no head, so it is no reward model; name a folder of sequence classification, or "
            "with --reference a language model whose implicit reward is meant"
        )
    hidden = "head/dense/kernel" in paths
    head: Any = heads.Scalar(hidden=hidden)
    if "head/logits/kernel" in paths:
        head = heads.Classes(values=_values(backbone), hidden=hidden)
    module = model.reward_model(backbone.config, head, backbone.pooling, dtype="float32")
    params = {path: jnp.asarray(x) for path, x in backbone.weights.items()}
    share = model.shares(backbone.config, backbone.pooling)
    # Nearly all published reward models are Bradley-Terry's.
    loss = "cross_entropy()" if "head/logits/kernel" in paths else "bradley_terry()"
    return _scorer(
        module.apply, params, backbone, loss, share=share, tiling=scoring.tiling(backbone.config)
    )


def _values(backbone: model.Backbone) -> tuple[float, ...]:
    """The ratings that a classifier's outputs stand for: their names where these are numbers, else 0, 1, ..."""
    count = backbone.weights["head/logits/bias"].shape[0]
    try:
        return tuple(float(label) for label in backbone.labels)
    except ValueError:
        return tuple(float(i) for i in range(count))


def _implicit(source: str, reference: str, beta: float) -> scoring.Scorer:
    both = {"policy": model.stored(source), "reference": model.stored(reference)}
    policy, other = both.values()
    if policy.tokenizer.to_json() != other.tokenizer.to_json():
        raise UserError(
            f"--reference={reference!r} has another tokenizer than --model={source!r}; name the model it was tuned from"
        )
    params = {}
    for name, one in both.items():
        weights = {k: w for k, w in one.weights.items() if not k.startswith("head/")}
        params |= {f"{name}/{path}": jnp.asarray(x) for path, x in weights.items()}
    language = lambda config: LanguageModel(Transformer(config))
    try:
        apply = implicit.create(language(policy.config), language(other.config), beta)
    except ValueError as error:
        raise UserError(f"--model={source!r}, --reference={reference!r}: {error}") from error
    # Each text is read whole: the token after a shared prompt has its own predecessor.
    return _scorer(apply, params, policy, "bradley_terry()", share=False)


def _scorer(
    apply: Any,
    params: dict[str, Any],
    backbone: model.Backbone,
    loss: str,
    *,
    share: bool,
    tiling: pipeline.Tiling | None = None,
) -> scoring.Scorer:
    layout = parallel.one_device(shardings.spec, 1)
    score = scoring.make_score(apply, layout, {}, 1, backbone.tokenizer.pad_id, tiling)
    most = backbone.config.max_positions - backbone.config.first_position
    longest = min(backbone.max_length or most, most)
    config: Any = ConfigDict({"loss": loss, "pair_arrays": "", "seeds": 1})
    reader = Reader(backbone.tokenizer, backbone.template, longest, share)
    return scoring.Scorer(lambda examples: score(params, examples), None, reader, config, "pairs")
