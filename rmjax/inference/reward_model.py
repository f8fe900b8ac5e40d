"""A reward model in Python: scores of texts, and how likely one completion is better than another.

Legend: N items, S seeds.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from rmjax import lookup
from rmjax.data.fields import Bad
from rmjax.errors import UserError
from rmjax.evaluation import ensembles
from rmjax.inference import scored, scoring, stored

# A text; (prompt, completion); a conversation, as a list of {"role", "content"}; or what a JSON line of `score` holds.
Item = str | tuple[Any, str] | Sequence[Mapping[str, Any]] | Mapping[str, Any]


class RewardModel(NamedTuple):
    """A reward model, ready to score.

    temperatures: of each seed, the score gap that means odds of e; None where nobody knows it.
    """

    scorer: scoring.Scorer
    temperatures: np.ndarray | None
    reduce: Any

    @property
    def notes(self) -> list[str]:
        """How the model reads texts, in words."""
        return list(self.scorer.notes)

    def score(self, items: Sequence[Item]) -> np.ndarray:
        """The scores of the items: float32 [N], in one packed batch after the other.

        items: texts, (prompt, completion) pairs, conversations as lists of messages, or JSON objects as
          experiments.score reads them. A process model's score is that of the worst step.
        Raises: UserError naming the item that cannot be scored.
        """
        return np.array([self._reduced(own) for own in self._scores(items)], np.float32)

    def prefer(self, prompt: Any, a: str, b: str) -> float:
        """The probability that completion `a` of the prompt is better than `b`, averaged over seeds.

        It is sigmoid((score(a) - score(b)) / temperature). A run folder's temperature was fitted to people's choices on
        validation documents, the geometric mean of the domains'. That of a Hugging Face model with one output is 1, as
        Bradley-Terry losses have it.
        prompt: a text or a list of messages.
        Raises: UserError of models whose score gaps are no log-odds.
        """
        if self.temperatures is None:
            raise UserError(
                "prefer: a gap between scores of this model is no log-odds, and no temperature was fitted to people's "
                "choices; compare scores instead, or train a reward model on the comparisons"
            )
        first, second = self._scores([(prompt, a), (prompt, b)])
        return float(np.mean(special.expit((first - second) / self.temperatures)))

    def _scores(self, items: Sequence[Item]) -> list[np.ndarray]:
        """Of each item the scores of every seed [S], of its steps [S, T]."""
        asked = []
        for i, item in enumerate(items):
            try:
                asked.append(scored.parsed(_row(item), f"item {i}", self.scorer.kind))
            except Bad as error:
                raise UserError(f"item {i}: {error}") from error
        return scored.scores(self.scorer, asked)[0] if asked else []

    def _reduced(self, own: np.ndarray) -> float:
        return float(self.reduce(own if own.ndim == 2 else own[:, None]).min())


def load(
    source: str | Path,
    *,
    output: str = "",
    weights: str = "",
    logit: bool = False,
    max_length: int = 0,
    special_tokens: str = "",
    reduce: str = "mean()",
) -> RewardModel:
    """A reward model from where it lies.

    source: a run folder of experiments.train_reward, a Hugging Face folder of sequence or token classification, or
      hf://ORG/NAME.
    output, weights, logit, max_length: of a Hugging Face folder, as the flags of experiments.evaluate.
    special_tokens: how special tokens that a text spells are read: "parse", "text", or as the model says ("").
    reduce: what makes one score of several seeds': mean(), worst(), lower_bound(k=1.0).
    Raises: UserError where there is no reward model, or it has several outputs and none is chosen.
    """
    home = Path(source)
    reduced = lookup.bind(reduce, ensembles.REDUCE, key="reduce")
    if (home / "checkpoints").is_dir():
        if output or weights or logit or max_length:
            raise UserError(
                f"{source}: is a run folder; output, weights, logit and max_length are of Hugging Face folders"
            )
        found = scoring.load(home, special_tokens=special_tokens)
        return RewardModel(found, _temperatures(home), reduced)
    asked = stored.Asked(output, weights, logit, max_length, special_tokens)
    found = stored.load(str(source), asked=asked, flag="")
    odds = np.ones(1) if lookup.same(found.config.loss, "bradley_terry()", key="loss") else None
    return RewardModel(found, odds, reduced)


def _temperatures(home: Path) -> np.ndarray | None:
    """Of each seed [S], the geometric mean over domains; None where the run has not been evaluated."""
    path = home / "results.json"
    fitted = json.loads(path.read_text("utf-8")).get("temperatures", {}) if path.exists() else {}
    if not fitted:
        return None
    return np.exp(np.mean(np.log(list(fitted.values())), axis=0))


def _row(item: Item) -> Any:
    """An item as the JSON object that says the same.

    Raises: Bad where it is none of the kinds.
    """
    if isinstance(item, str):
        return {"text": item}
    if isinstance(item, tuple) and len(item) == 2:
        return {"prompt": item[0], "completion": item[1]}
    if isinstance(item, Mapping):
        return dict(item)
    if isinstance(item, list) and item:
        return {"messages": item}
    raise Bad(
        "must be a text, a (prompt, completion) tuple, a list of messages, or a JSON object as experiments.score reads"
    )
