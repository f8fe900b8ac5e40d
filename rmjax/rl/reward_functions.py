"""The `reward` and `gold` lines of a config as functions of a rollout's texts: checked terms, and what they need."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from rmjax import lookup
from rmjax.data.records import Prompt, RatedText
from rmjax.errors import UserError
from rmjax.inference import embedder, scoring, stored
from rmjax.rewards import REWARDS
from rmjax.rl.packing import Texts

Reward = Callable[[Texts], np.ndarray]


def terms(config: Any, key: str) -> list[lookup.Term]:
    """The terms of a reward line, [] if it is off.

    key: "reward" or "gold"; "reward_model" or "gold_model" is the model that learned() and the like ask.
    Raises: UserError on an unknown reward or option, or where a term needs a model and none is named.
    """
    if lookup.off(config[key], key=key):
        return []
    found = lookup.terms(config[key], REWARDS, key=key)
    asks = [t.name for t in found if {"score", "probabilities"} & set(lookup.arrays(t.function))]
    if asks and not config[f"{key}_model"]:
        raise UserError(f"config key '{key}': {', '.join(asks)} needs a reward model; name its run folder, or a "
                        f"Hugging Face folder, in {key}_model")  # fmt: skip
    return found


def make(config: Any, key: str, prompts: Mapping[str, Prompt], *, whole: bool) -> Reward | None:
    """Returns reward(Texts) -> float32 [N], the sum of the line's terms; None without any.

    prompts: by their text, as the data have them. whole: prompt and completion are one text to a reward model.
    Raises: UserError as `terms`, or where the model cannot be loaded.
    """
    found = terms(config, key)
    if not found:
        return None
    needed = {name for term in found for name in lookup.arrays(term.function)}
    resources = {}
    if {"score", "probabilities"} & needed:
        source, output = config[f"{key}_model"], config[f"{key}_output"]
        resources |= _asked(source, prompts, key, output, whole=whole, scored="score" in needed)
    if {"embed", "word_vectors"} & needed:
        resources |= embedder.resources()

    def reward(texts: Texts) -> np.ndarray:
        offered = {**texts._asdict(), **resources}
        total = np.zeros(len(texts.completions), np.float32)
        for term in found:
            read = {name: offered[name] for name in lookup.arrays(term.function) if name in offered}
            total += term.coef * term.function(**read)
        return total

    missing = needed - {*Texts._fields, *resources}
    if missing:
        raise UserError(
            f"config key '{key}': needs {', '.join(sorted(missing))}, which a run cannot give"
        )
    return reward


def _asked(
    source: str,
    prompts: Mapping[str, Prompt],
    key: str,
    output: str,
    *,
    whole: bool,
    scored: bool,
) -> dict[str, Callable]:
    """What a model answers: `score` [N] or, of several seeds, [S, N]; of a classifier also `probabilities` [N, C].

    output: which of a stored model's several outputs is the score. scored: whether a score is asked for at all.
    """
    home = Path(source) / "checkpoints"
    if not (source.startswith("hf://") or Path(source).exists()):
        raise UserError(
            f"there is no {source!r} to ask for rewards; name the folder of a finished run of "
            "experiments.train_reward, or a Hugging Face folder"
        )
    own = lambda: stored.load_reward(source, output, key, scored=scored)
    scorer = scoring.load(Path(source)) if home.is_dir() else own()

    def records(asked: Sequence[str], completions: Sequence[str]) -> list[RatedText]:
        return [
            RatedText("", "", "", p + c, 0.0)
            if whole
            else RatedText("", "", "", c, 0.0, prompt=prompts.get(p, p))
            for p, c in zip(asked, completions, strict=True)
        ]

    def score(asked: Sequence[str], completions: Sequence[str]) -> np.ndarray:
        found = scorer.records(records(asked, completions))
        return found[0] if len(found) == 1 else found

    def probabilities(asked: Sequence[str], completions: Sequence[str]) -> np.ndarray:
        outputs = scorer.scored(records(asked, completions)).outputs
        if "logits" not in outputs:
            raise UserError(f"{source} is no classifier, so it gives no class_probability(); train one with a head of "
                            "classes()")  # fmt: skip
        return special.softmax(outputs["logits"], axis=-1).mean(axis=0)

    return {"score": score, "probabilities": probabilities}
