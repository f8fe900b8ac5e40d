"""What is computed of each kind of record, and from scores of which shape.

Scores of one model: [N] of rated texts; [N, 2] of pairs, chosen first; [N, K] of rankings and [N, T] of processes, a
record's own first and NaN after them (`padded`).
Legend: N records, M logits, B resamples; a metric is a `statistics.Figure`: [B + 1], [0] the sample itself.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

import numpy as np
from scipy import special

from rmjax.data import examples
from rmjax.data.records import Pair, Process, Prompt, Ranking, RatedText, Record, Text
from rmjax.errors import UserError
from rmjax.evaluation import (
    best_of_n,
    calibration,
    classification,
    length_bias,
    links,
    processes,
    ranking,
    within_prompts,
)
from rmjax.evaluation.statistics import Figure, Resamples
from rmjax.rewards import rules

PAIR_TEXTS = 3000  # texts of a domain that form pairs; a random draw of more
WITHIN = "within_prompt_"  # begins the names of figures within the prompts of rated texts
CLASS_FIGURES = ("accuracy", "macro_f1", "auc")  # of texts one by one
# The figure that validation watches.
WATCHED = {
    RatedText: "pearson",
    Pair: "pair_accuracy",
    Ranking: "pair_accuracy",
    Process: "step_accuracy",
}
Outputs = Mapping[
    str, np.ndarray
]  # a head's arrays by name, each [N, ..] as scores are, its own axes last
# From the outputs of the first and of the second of pairs to the probability that the first is better.
Link = Callable[[Outputs, Outputs], np.ndarray]


class Compared(NamedTuple):
    """Logits, what people said, and the record of each.

    logit, target: [N', N'] of some rated texts, the first against the second; else [M]: of pairs, also those within
      rankings, the better first; of the steps of processes.
    record: index of each text [N'], or of each of M [M].
    """

    logit: np.ndarray
    target: np.ndarray
    record: np.ndarray


def padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays of their own length as one [N, longest], NaN after each."""
    found = np.full((len(rows), max(map(len, rows))), np.nan)
    for to, row in zip(found, rows, strict=True):
        to[: len(row)] = row
    return found


def compared(records: Sequence[Record], score: np.ndarray) -> Compared:
    """Of the records of one domain. Where raters' own ratings or votes are unknown, the order or choice does."""
    first, second = sides(records, score)
    logit = first - second
    match records[0]:
        case RatedText():
            at = _some(len(records))
            return Compared(logit, _vote_shares([cast(RatedText, records[i]) for i in at]), at)
        case Pair():
            own = [cast(Pair, r).target for r in records]
            target = np.array([1.0 if t is None else t for t in own])
            return Compared(logit, target, np.arange(len(records)))
        case Ranking():
            sizes = [len(_ordered(r)[0]) for r in _ratings_of(records)]
            return Compared(logit, np.ones(len(logit)), np.repeat(np.arange(len(records)), sizes))
        case Process():
            labels = [np.array(cast(Process, r).labels) for r in records]
            record = np.repeat(np.arange(len(records)), [len(v) for v in labels])
            return Compared(logit, np.concatenate(labels), record)
        case Text():
            raise _unrated()


def sides(records: Sequence[Record], values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One output [N, ..] of the first and of the second of every pair of `Compared`, float64, its own axes last.

    The second of a step of a process is 0.
    """
    values = values.astype(np.float64)
    match records[0]:
        case RatedText():
            at = _some(len(records))
            return values[at][:, None], values[at][None, :]
        case Pair():
            return values[:, 0], values[:, 1]
        case Ranking():
            orders = [_ordered(r) for r in _ratings_of(records)]
            pick = lambda side: np.concatenate(
                [v[o[side]] for v, o in zip(values, orders, strict=True)]
            )
            return pick(0), pick(1)
        case Process():
            steps = np.concatenate(_own(records, values))
            return steps, np.zeros_like(steps)
        case Text():
            raise _unrated()


def values(records: Sequence[Record], score: np.ndarray, resamples: Resamples) -> dict[str, Figure]:
    """How well scores order or classify the records of one domain."""
    match records[0]:
        case RatedText():
            rating, at = ratings(records), _some(len(records))
            places = _by_prompt(records)
            split = lambda v: [v[own] for own in places]
            first = resamples.of(np.array([own[0] for own in places], np.int64))
            within = within_prompts.figures(split(score), split(rating), first) if places else {}
            return {f"{WITHIN}{name}": value for name, value in within.items()} | {
                "pearson": ranking.pearson(score, rating, resamples),
                "spearman": ranking.spearman(score, rating, resamples),
                **ranking.pairs([score[at]], [rating[at]], [np.arange(len(at))], resamples.of(at)),
            }
        case Pair():
            gap = score[:, 0] - score[:, 1]
            return {
                "pair_accuracy": resamples.proportion(0.5 + 0.5 * np.sign(gap)),
                "tie_rate": resamples.proportion((gap == 0).astype(np.float64)),
            }
        case Ranking():
            own, gold = _own(records, score), _ratings_of(records)
            ordered = within_prompts.figures(own, gold, resamples)
            return ordered | best_of_n.figures(own, gold, resamples)
        case Process():
            labels = [np.array(cast(Process, r).labels) for r in records]
            return processes.figures(_own(records, score), labels, resamples)
        case Text():
            raise _unrated()


def classified(
    records: Sequence[Record], logits: np.ndarray, resamples: Resamples
) -> dict[str, Figure]:
    """Accuracy, macro F1 and AUC of rated texts whose ratings are classes, from their logits [N, C]."""
    shares = special.softmax(logits.astype(np.float64), axis=-1)
    return classification.shares(ratings(records).astype(np.int64), shares, resamples)


def calibrated(
    found: Compared, resamples: Resamples, temperature: float | None, implied: np.ndarray | None
) -> dict[str, Figure]:
    """Calibration errors (`ece`, `ece_plain`, `ece_calibrated`), Brier and log score of sigmoid(logit / temperature).

    Where given, also of what the loss implies, as `own_..`.

    implied: probabilities that the first is better, as the logits.
    """
    of = calibration.figures if found.logit.ndim == 2 else calibration.given_pairs
    drawn = resamples.of(found.record)
    made = {} if temperature is None else of(found.logit / temperature, found.target, drawn)
    if implied is not None:
        logit = links.logit(implied)
        if logit.ndim == 2:  # antisymmetric to the last digit, the diagonal 0
            logit = (logit - logit.T) / 2
        own = of(logit, found.target, drawn)
        made |= {f"own_{name}": value for name, value in own.items()}
    return made


def implied(records: Sequence[Record], outputs: Outputs, link: Link) -> np.ndarray:
    """What the link says of every pair of `Compared`."""
    both = {name: sides(records, values) for name, values in outputs.items()}
    return link({k: v[0] for k, v in both.items()}, {k: v[1] for k, v in both.items()})


def probes(records: Sequence[Record], score: np.ndarray, resamples: Resamples) -> dict[str, Figure]:
    """How far scores follow length in characters; nothing of processes."""
    match records[0]:
        case RatedText():
            length = rules.characters([cast(RatedText, r).text for r in records])
            return length_bias.texts(score, length, ratings(records), resamples)
        case Pair() | Ranking():
            gaps, lengths = (compared(records, v) for v in (score, baselines(records)["longer"]))
            return length_bias.pairs(gaps.logit, lengths.logit, resamples.of(gaps.record))
        case Process():
            return {}
        case Text():
            raise _unrated()


def baselines(records: Sequence[Record]) -> dict[str, np.ndarray]:
    """Scores of what no one trained. The majority of a process's steps are right: its score says so of every step."""
    match records[0]:
        case RatedText():
            texts = [cast(RatedText, r).text for r in records]
            length = rules.characters(texts)
            return {
                "vader": rules.vader(texts),
                "length": length,
                "majority": np.zeros_like(length),
            }
        case Process():
            steps = [np.ones(len(cast(Process, r).steps)) for r in records]
            return {"majority": padded(steps)}
        case Pair():
            longer = padded(
                [rules.characters([r.chosen, r.rejected]) for r in cast(list[Pair], records)]
            )
        case Ranking():
            longer = padded([rules.characters(r.completions) for r in cast(list[Ranking], records)])
        case Text():
            raise _unrated()
    return {"longer": longer, "shorter": -longer, "majority": 0 * longer}


def _unrated() -> UserError:
    return UserError("these texts have no ratings, so no reward can be evaluated on them")


def ratings(records: Sequence[Record]) -> np.ndarray:
    """The ratings of rated texts [N]."""
    return np.array([cast(RatedText, r).rating for r in records])


def counts(records: Sequence[Record], name: str) -> dict[str, int]:
    """What a figure of that name is over: records, documents, and the pairs or steps where it is over these."""
    found = {"n": len(records), "documents": len({r.document for r in records})}
    match records[0]:
        case RatedText():
            if name.startswith(WITHIN):
                rating = ratings(records)
                each = [within_prompts.pairs(rating[own]) for own in _by_prompt(records)]
                return found | {"pairs": sum(each)}
            if name not in ("pearson", "spearman", *CLASS_FIGURES):
                every = ratings([records[i] for i in _some(len(records))])
                unequal = name in ("kendall", "pair_accuracy", "tie_rate")
                all_pairs = len(every) * (len(every) - 1) // 2
                return found | {"pairs": within_prompts.pairs(every) if unequal else all_pairs}
        case Pair():
            return found | {"pairs": len(records)}
        case Ranking():
            return found | {"pairs": sum(map(within_prompts.pairs, _ratings_of(records)))}
        case Process():
            return found | {"steps": sum(len(cast(Process, r).steps) for r in records)}
    return found


def _by_prompt(records: Sequence[Record]) -> list[np.ndarray]:
    """Places of the texts of each prompt that has several; texts without a prompt have none."""
    found: dict[Prompt, list[int]] = {}
    for i, record in enumerate(records):
        if record.prompt:
            found.setdefault(record.prompt, []).append(i)
    return [np.array(own) for own in found.values() if len(own) > 1]


def _own(records: Sequence[Record], score: np.ndarray) -> list[np.ndarray]:
    """Each record's scores, without what pads them."""
    sizes = [
        len(r.completions if isinstance(r, Ranking) else cast(Process, r).steps) for r in records
    ]
    return [row[:size] for row, size in zip(score, sizes, strict=True)]


def _ratings_of(records: Sequence[Record]) -> list[np.ndarray]:
    return [np.array(cast(Ranking, r).ratings) for r in records]


def _ordered(rating: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of the better and of the worse of every pair of unequal ratings."""
    better, worse = np.nonzero(rating[:, None] > rating[None, :])
    return better, worse


def _vote_shares(texts: Sequence[RatedText]) -> np.ndarray:
    if not all(r.ratings for r in texts):
        rating = ratings(texts)
        return 0.5 + 0.5 * np.sign(rating[:, None] - rating[None, :])
    panels = [r.ratings for r in texts]
    distinct = np.unique(np.concatenate(panels))
    return calibration.vote_shares(examples.shares(panels, distinct))


def _some(size: int) -> np.ndarray:
    """Places of at most PAIR_TEXTS of that many texts, the same ones every time."""
    at = np.arange(size)
    if size <= PAIR_TEXTS:
        return at
    return np.sort(np.random.default_rng(0).choice(at, PAIR_TEXTS, replace=False))
