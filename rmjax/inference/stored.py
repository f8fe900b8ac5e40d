"""Reward models that come as Hugging Face folders, exported here or made elsewhere, as scorers."""

import ast
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rmjax.data.examples import Examples
from rmjax.data.tokenizer import UNLIMITED
from rmjax.errors import UserError
from rmjax.inference import backbones, scoring
from rmjax.models import heads, implicit, shardings
from rmjax.models.outputs import Outputs
from rmjax.models.transformer import Config, LanguageModel, Transformer
from rmjax.train import forward, parallel
from rmjax.train.state import collections


class Asked(NamedTuple):
    """What a user says of how a stored model is read, each by the flag of its name.

    output: which of several outputs is the score. weights: instead, a weighted sum of them, such as
      "helpfulness=1,verbosity=-0.2" or "{'helpfulness': 1}".
    logit: of labels and classes the logit in place of the probability.
    max_length: tokens at which texts are cut; 0: nothing is. special_tokens: as of `model.reader`.
    """

    output: str = ""
    weights: str = ""
    logit: bool = False
    max_length: int = 0
    special_tokens: str = ""


NOTHING = Asked()


def load(
    source: str, *, reference: str = "", beta: float = 0.1, asked: Asked = NOTHING, flag: str = "--"
) -> scoring.Scorer:
    """A stored classifier; or, with a reference, the implicit reward of a language model tuned from it.

    source, reference: as `pretrained` of a config's model line.
    beta: the coefficient that the policy was tuned with.
    flag: what stands before the names of `asked` in errors.
    Raises: UserError where the folders hold no such models, or `asked` does not say which output is the score.
    """
    for each in (source, reference):
        if (Path(each) / "checkpoints").is_dir():
            raise UserError(
                f"{each} is a run's folder, not a Hugging Face folder: of a reward model, name it with --workdir; or "
                f"export it first (experiments.export --workdir={each} --output=...)"
            )
    if reference:
        return _implicit(source, reference, beta, asked)
    return _classifier(source, asked, flag)


def load_reward(source: str, output: str, key: str, *, scored: bool) -> scoring.Scorer:
    """A stored classifier that a config's line `key` asks for rewards.

    output: the line KEY_output. scored: False where its probabilities alone are asked for, whatever its score is.
    """
    asked = Asked(output)
    outputs = backbones.stored(source).outputs
    if not scored and not output and outputs is not None and len(outputs.names) > 1:
        asked = Asked(outputs.names[0])
    return load(source, asked=asked, flag=f"config key {key}_")


def names_output(source: str, output: str) -> bool:
    """Whether a stored model has several outputs, and one of this name."""
    if output in ("", "-"):
        return False
    outputs = backbones.stored(source).outputs
    return outputs is not None and len(outputs.names) > 1 and output in outputs.names


def _classifier(source: str, asked: Asked, flag: str) -> scoring.Scorer:
    backbone = backbones.pretrained(source=source)
    if backbone.outputs is None:
        raise UserError(
            f"--model={source!r} has no head, so it is no reward model; name a folder of sequence classification, or "
            "with --reference a language model whose implicit reward is meant"
        )
    hidden = "head/dense/kernel" in backbone.weights
    head, loss, note = _head(source, backbone.outputs, asked, hidden, flag)
    module = backbones.reward_model(backbone.config, head, backbone.pooling, dtype="float32")
    share = backbones.shares(backbone.config, backbone.pooling)
    steps = backbone.outputs.kind == "steps"
    made = _scorer(
        forward.scores(module.apply),
        backbone.weights,
        backbone,
        asked,
        loss,
        share=share,
        tiled=True,
    )
    rule = "" if steps or backbone.pooling != "last" else made.reader.rule()
    notes = [note for note in (rule, note, *made.notes) if note]
    return made._replace(notes=notes, kind="processes" if steps else "pairs")


def _head(
    source: str, outputs: Outputs, asked: Asked, hidden: bool, flag: str
) -> tuple[Any, str, str]:
    """The head that makes the score of a model's outputs, the loss that says what it means, and a note."""
    given = asked.output or asked.weights
    if asked.output and asked.weights:
        raise UserError(f"{flag}output and {flag}weights: each says what the score is; give one")
    if outputs.kind == "score":
        if given or asked.logit:
            name = "output" if asked.output else "weights" if asked.weights else "logit"
            raise UserError(
                f"--model={source!r} has one output, which is the score; leave {flag}{name} away"
            )
        # Nearly all published reward models are Bradley-Terry's.
        return heads.Scalar(hidden=hidden), "bradley_terry()", ""
    if outputs.kind == "ordinal" and not given:
        return heads.Classes(values=outputs.values, hidden=hidden), "cross_entropy()", ""
    if outputs.kind == "steps" and not given and outputs.unnamed and len(outputs.names) == 2:
        given, asked = outputs.names[1], asked._replace(output=outputs.names[1])
    if not given:
        raise UserError(_choices(source, outputs, flag))
    weights = _weights(source, outputs, asked, flag)
    link = {"attributes": "identity", "labels": "sigmoid", "steps": "log_odds"}.get(
        outputs.kind, "softmax"
    )
    if asked.logit:
        if outputs.kind not in ("labels", "classes", "ordinal"):
            raise UserError(f"{flag}logit: only labels and classes have a probability and a logit")
        link = "identity"
    what = {
        "identity": "the output" if outputs.kind == "attributes" else "the logit",
        "log_odds": "the log-odds, at the end of each step,",
    }.get(link, "the probability")
    name = asked.output or "a weighted sum of all outputs"
    projected = "attributes" if outputs.kind == "attributes" else "logits"
    head = heads.Named(weights=weights, link=link, outputs=projected, hidden=hidden)
    if asked.weights:
        return (
            head,
            "mse()",
            f"the score is a sum of {what.replace('the ', '')}s, weighted {asked.weights}",
        )
    loss = "process()" if outputs.kind == "steps" else "mse()"
    return head, loss, f"the score is {what} of {name}"


def _choices(source: str, outputs: Outputs, flag: str) -> str:
    """What to say of a model with several outputs where nobody said which is the score."""
    listed = ", ".join(outputs.names)
    what = {
        "attributes": f"several outputs (regression): {listed}",
        "labels": f"several labels, each of which holds or not: {listed}",
        "steps": f"classes of each step (token classification): {listed}",
    }.get(outputs.kind, f"classes in no stated order: {listed}")
    how = {
        "attributes": f"{flag}output={outputs.names[0]}",
        "steps": f"{flag}output={outputs.names[-1]} (scored by the log-odds of that class at each step)",
    }.get(
        outputs.kind,
        f"{flag}output={outputs.names[0]} (scored by that label's probability; {flag}logit by its logit)",
    )
    weighted = (
        f'; or {flag}weights="{outputs.names[0]}=1,{outputs.names[-1]}=-0.5" for a weighted sum'
    )
    return (
        f"--model={source!r} has {what}. Say which is the score: {how}"
        f"{'' if outputs.kind == 'steps' else weighted}"
    )


def _weights(source: str, outputs: Outputs, asked: Asked, flag: str) -> tuple[float, ...]:
    """The weight of each output in the score."""
    given = {asked.output: 1.0} if asked.output else _parsed(asked.weights, flag)
    if unknown := sorted(set(given) - set(outputs.names)):
        name = "output" if asked.output else "weights"
        raise UserError(
            f"{flag}{name}: --model={source!r} has no output {', '.join(unknown)}; there are {', '.join(outputs.names)}"
        )
    if asked.weights and outputs.kind == "steps":
        raise UserError(f"{flag}weights: a process model is scored by one class; give {flag}output")
    return tuple(float(given.get(name, 0.0)) for name in outputs.names)


def _parsed(text: str, flag: str) -> Mapping[str, float]:
    """Weights as "a=1,b=-0.2" or as a dict's literal."""
    try:
        if text.strip().startswith("{"):
            found = ast.literal_eval(text)
            return {str(name): float(value) for name, value in found.items()}
        parts = [part.rpartition("=") for part in text.split(",")]
        return {name.strip(): float(value) for name, _, value in parts}
    except (ValueError, SyntaxError, TypeError) as error:
        raise UserError(
            f"{flag}weights={text!r}: write names and numbers, such as helpfulness=1,verbosity=-0.2"
        ) from error


def _implicit(source: str, reference: str, beta: float, asked: Asked) -> scoring.Scorer:
    both = {"policy": backbones.stored(source), "reference": backbones.stored(reference)}
    policy, other = both.values()
    if policy.tokenizer.to_json() != other.tokenizer.to_json():
        raise UserError(
            f"--reference={reference!r} has another tokenizer than --model={source!r}; name the model it was tuned from"
        )
    params = {}
    for name, one in both.items():
        weights = {k: w for k, w in one.weights.items() if not k.startswith("head/")}
        params |= {f"{name}/{path}": x for path, x in weights.items()}
    language = lambda config: LanguageModel(Transformer(config))
    try:
        score = implicit.create(language(policy.config), language(other.config), beta)
    except ValueError as error:
        raise UserError(f"--model={source!r}, --reference={reference!r}: {error}") from error
    run = lambda params, frozen, batch, rng: score(collections(params), batch)
    # Each text is read whole: the token after a shared prompt has its own predecessor.
    made = _scorer(run, params, policy, asked, "bradley_terry()", share=False)
    reads = backbones.reads(policy, made.reader, f"--model={source!r}")
    stop = policy.tokenizer.token(reads.stop_ids[0])
    note = f"completions are scored with their stop token, {stop}"
    return made._replace(reads=reads, notes=[note, *made.notes])


def _scorer(
    run: Callable,
    weights: Mapping[str, Any],
    backbone: backbones.Backbone,
    asked: Asked,
    loss: str,
    *,
    share: bool,
    tiled: bool = False,
) -> scoring.Scorer:
    """run: as `forward.scores` gives."""
    layout = parallel.one_device(shardings.spec, 1)
    params = {path: jnp.asarray(x) for path, x in weights.items()}
    cut = scoring.tiling(backbone.config) if tiled else None
    score = scoring.make_score(run, layout, {}, 1, backbone.tokenizer.pad_id, cut)
    most = positions(backbone.config)
    if asked.max_length < 0 or asked.max_length > most:
        raise UserError(
            f"--max_length={asked.max_length}: must be 0 (nothing is cut) or at most the model's {most} positions"
        )

    def raw(examples: Examples) -> scoring.Outputs:
        if examples.lengths.max(initial=0) > most:
            longest = int(np.argmax(examples.lengths))
            raise UserError(
                f"record {examples.ids[longest]!r} has {examples.lengths[longest]:,} tokens, and the model has learned "
                f"positions for {most:,} alone; --max_length={most} cuts what is longer"
            )
        _check_pads(backbone, examples)
        return score(params, examples)

    config: Any = ConfigDict({"loss": loss, "pair_arrays": "", "seeds": 1})
    reader = backbones.reader(
        backbone, asked.max_length or UNLIMITED, asked.special_tokens, share=share
    )
    notes = []
    if backbone.template is not None and backbone.template.date:
        notes.append(f"the chat template renders the date {backbone.template.date}")
    if backbone.dtype != "float32":
        notes.append(f"weights stored as {backbone.dtype} are computed with in float32")
    return scoring.Scorer(raw, None, reader, config, "pairs", notes, outputs=backbone.outputs)


def _check_pads(backbone: backbones.Backbone, examples: Examples) -> None:
    """Raises: UserError where a text spells the padding by which RoBERTa counts positions."""
    pad = backbone.config.first_position - 1
    if pad < 0:
        return
    for name, tokens in zip(examples.ids, examples.tokens, strict=True):
        if np.any(tokens == pad):
            raise UserError(
                f"record {name!r} spells {backbone.tokenizer.token(pad)}, which this model counts as padding and not "
                "as a token; --special_tokens=text reads it as text"
            )


def positions(config: Config) -> int:
    """The longest text that a model reads: as many tokens as it has learned positions, else any number."""
    if config.positions != "learned":
        return UNLIMITED
    return config.max_positions - config.first_position
