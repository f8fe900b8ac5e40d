"""Held-out records and their scores to figures with intervals, beside people and trivial baselines.

Legend: N records, S seeds, B resamples. Scores are [S, N], or [S, N, 2] of pairs: chosen, rejected.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np

from rmjax.data import examples
from rmjax.data.records import Pair, RatedText, Record
from rmjax.evaluation import agreement, calibration, ranking, statistics
from rmjax.rewards import rules

PAIR_TEXTS = 3000  # texts of a domain that form pairs; a random draw of more
Figures = dict[str, dict[str, Any]]
Temperatures = Mapping[str, Sequence[float]]  # domain -> one a seed


def figures(
    test: Sequence[Record],
    scores: np.ndarray,
    fitted: Temperatures,
    validation: Sequence[Record] = (),
) -> Figures:
    """Every figure of the model, and of people and baselines on the same records.

    fitted: what `temperatures` gave for the model; a domain that is missing takes their geometric mean.
    validation: records on which the baselines' temperatures are fitted; none, and they have no calibration.
    """
    found = _of_scorer("", test, scores, fitted)
    tuning = _baselines(validation) if validation else {}
    for who, values in _baselines(test).items():
        own = temperatures(validation, tuning[who][None]) if tuning else {}
        found |= _of_scorer(f"{who}/", test, values[None], own)
    for domain, records, _ in by_domain(test):
        panels = [np.array(r.ratings) for r in records if isinstance(r, RatedText)]
        if len(panels) == len(records) and all(len(p) > 1 for p in panels):
            found |= _of_people(domain, records, panels)
    return found


def quick(records: Sequence[Record], scores: np.ndarray) -> float:
    """The figure that validation watches, for scores [N] or [N, 2]: Pearson's r or pair accuracy, mean over domains."""
    name = "pair_accuracy" if isinstance(records[0], Pair) else "pearson"
    found = []
    for _, own, at in by_domain(records):
        if name == "pearson":
            resamples = statistics.resample([r.document for r in own], count=0)
            found.append(float(ranking.pearson(scores[at], _ratings(own), resamples)[0]))
        else:
            gap = scores[at, 0] - scores[at, 1]
            found.append(float(np.mean(0.5 + 0.5 * np.sign(gap))))
    return float(np.mean(np.nan_to_num(found)))  # a constant score has no r; it counts 0


def temperatures(records: Sequence[Record], scores: np.ndarray) -> dict[str, list[float]]:
    """The temperature of each domain and seed that fits the shares of raters best."""
    found = {}
    for domain, own, at in by_domain(records):
        own, keep = _some(own)
        logits = (_gaps(s[at][keep]) for s in scores)
        found[domain] = [calibration.fit_temperature(g, _targets(own)) for g in logits]
    return found


def reliability(
    records: Sequence[Record], scores: np.ndarray, fitted: Temperatures
) -> dict[str, dict[str, list[float]]]:
    """The reliability diagram of each domain, of the first seed's scores."""
    found = {}
    for domain, own, at in by_domain(records):
        own, keep = _some(own)
        logit = _gaps(scores[0][at][keep]) / _temperature(fitted, domain)[0]
        diagram = calibration.reliability(logit, _targets(own))
        found[domain] = {k: v.tolist() for k, v in diagram._asdict().items()}
    return found


def predictions(
    test: Sequence[Record],
    scores: np.ndarray,
    validation: Sequence[Record],
    validation_scores: np.ndarray,
) -> Iterator[dict[str, Any]]:
    """One line a record, for scores [N] or [N, 2]; of rated texts also the score on the raters' scale.

    That is the least-squares line from scores to ratings over the validation records.
    """
    slope, offset = 0.0, 0.0
    if isinstance(test[0], RatedText):
        slope, offset = np.polyfit(validation_scores.astype(np.float64), _ratings(validation), 1)
    for record, score in zip(test, scores, strict=True):
        line: dict[str, Any] = {
            "id": record.id,
            "domain": record.domain,
            "document": record.document,
        }
        if isinstance(record, Pair):
            texts = {k: getattr(record, k) for k in ("prompt", "chosen", "rejected")}
            sides = {"chosen_score": float(score[0]), "rejected_score": float(score[1])}
            yield line | texts | sides
        else:
            predicted = float(slope * score + offset)
            line |= {"text": record.text, "rating": record.rating}
            yield line | {"score": float(score), "predicted": predicted}


def interval_name(seeds: int) -> str:
    """What the intervals are over, in words."""
    bootstrap = f"over documents (bootstrap, {statistics.RESAMPLES:,} resamples)"
    if seeds == 1:
        return f"95% {bootstrap}"
    return f"95%; the model's over {seeds} seeds (Student's t), people's and baselines' {bootstrap}"


def by_domain(records: Sequence[Record]) -> Iterator[tuple[str, list[Record], np.ndarray]]:
    """Each domain in order of appearance, its records, and their places."""
    for domain in dict.fromkeys(r.domain for r in records):
        at = np.array([i for i, r in enumerate(records) if r.domain == domain])
        yield domain, [records[i] for i in at], at


def _of_scorer(
    prefix: str, records: Sequence[Record], scores: np.ndarray, fitted: Temperatures
) -> Figures:
    """The figures of one model or baseline: bootstrap intervals of one seed, t intervals of several."""
    found = {}
    seeds = len(scores)
    for domain, own, at in by_domain(records):
        known = _temperature(fitted, domain)
        count = statistics.RESAMPLES if seeds == 1 else 0
        per_seed = [
            _values(own, s[at], known[i] if known else None, count) for i, s in enumerate(scores)
        ]
        for name in per_seed[0]:
            arrays = [values[name] for values in per_seed]
            each = [float(a[0]) for a in arrays]
            made = statistics.interval(arrays[0]) if seeds == 1 else statistics.over_seeds(each)
            more = {} if seeds == 1 else {"per_seed": [_finite(v) for v in each]}
            found[f"{prefix}{domain}/{name}"] = _figure(own, name, made) | more
        if known:
            temperature = statistics.Estimate(float(np.mean(known)), math.nan, math.nan)
            found[f"{prefix}{domain}/temperature"] = _figure(own, "temperature", temperature)
    return found


def _of_people(domain: str, records: list[Record], panels: list[np.ndarray]) -> Figures:
    resamples = statistics.resample([r.document for r in records])
    single = agreement.single_rater(panels, resamples)
    ceiling = agreement.noise_ceiling(panels, resamples)
    values = {f"human/{domain}/{name}": (name, v) for name, v in single.items()}
    values[f"ceiling/{domain}/pearson"] = ("pearson", ceiling)
    return {
        key: _figure(records, name, statistics.interval(v)) for key, (name, v) in values.items()
    }


def _values(
    records: list[Record], score: np.ndarray, temperature: float | None, count: int
) -> dict[str, np.ndarray]:
    """Every metric of one domain, [count + 1] each."""
    resamples = statistics.resample([r.document for r in records], count=count)
    if isinstance(records[0], Pair):
        gap = _gaps(score)
        right = np.stack([np.ones_like(gap), 0.5 + 0.5 * np.sign(gap), gap == 0], axis=1)
        total, correct, tied = resamples.sums(right).T
        found = {"pair_accuracy": correct / total, "tie_rate": tied / total}
        calibrate, formed = calibration.given_pairs, resamples
        kept, gaps = records, gap
    else:
        rating = _ratings(records)
        found = {
            "pearson": ranking.pearson(score, rating, resamples),
            "spearman": ranking.spearman(score, rating, resamples),
        }
        kept, at = _some(records)
        formed, gaps = resamples.of(at), _gaps(score[at])
        found |= ranking.pairs([score[at]], [rating[at]], [np.arange(len(at))], formed)
        calibrate = calibration.figures
    if temperature is not None:
        found |= calibrate(gaps / temperature, _targets(kept), formed)
    return found


def _baselines(records: Sequence[Record]) -> dict[str, np.ndarray]:
    """Scores [N] or [N, 2] of what no one trained."""
    pairs = [r for r in records if isinstance(r, Pair)]
    if pairs:
        sides = ([r.chosen for r in pairs], [r.rejected for r in pairs])
        longer = np.stack([rules.length(side) for side in sides], axis=1)
        return {"longer": longer, "shorter": -longer, "majority": np.zeros_like(longer)}
    texts = [r.text for r in records if isinstance(r, RatedText)]
    length = rules.length(texts)
    return {"vader": rules.vader(texts), "length": length, "majority": np.zeros_like(length)}


def _ratings(records: Sequence[Record]) -> np.ndarray:
    return np.array([cast(RatedText, r).rating for r in records])


def _gaps(score: np.ndarray) -> np.ndarray:
    """Score differences [N, N] of texts, [N] of given pairs."""
    score = score.astype(np.float64)
    return score[:, 0] - score[:, 1] if score.ndim == 2 else score[:, None] - score[None, :]


def _targets(records: Sequence[Record]) -> np.ndarray:
    """Shares of raters for the first of two texts [N, N], or for the chosen of given pairs [N].

    Where raters' own ratings or votes are unknown, the order of the ratings, or the choice, stands for them.
    """
    if isinstance(records[0], Pair):
        own = [cast(Pair, r).target for r in records]
        return np.array([1.0 if t is None else t for t in own])
    texts = [cast(RatedText, r) for r in records]
    if not all(r.ratings for r in texts):
        return 0.5 + 0.5 * np.sign(_gaps(_ratings(texts)))
    panels = [r.ratings for r in texts]
    distinct = np.unique(np.concatenate(panels))
    return calibration.vote_shares(examples.shares(panels, distinct))


def _some(records: list[Record]) -> tuple[list[Record], np.ndarray]:
    """At most PAIR_TEXTS of the rated texts, the same ones every time, and their places."""
    at = np.arange(len(records))
    if isinstance(records[0], RatedText) and len(records) > PAIR_TEXTS:
        at = np.sort(np.random.default_rng(0).choice(at, PAIR_TEXTS, replace=False))
    return [records[i] for i in at], at


def _temperature(fitted: Temperatures, domain: str) -> Sequence[float]:
    if domain in fitted or not fitted:
        return fitted.get(domain, ())
    return np.exp(np.mean(np.log(list(fitted.values())), axis=0)).tolist()


def _figure(records: Sequence[Record], name: str, made: statistics.Estimate) -> dict[str, Any]:
    counts = {"n": len(records), "documents": len({r.document for r in records})}
    if name not in ("pearson", "spearman"):
        counts["pairs"] = _pairs(records, unequal=name in ("kendall", "pair_accuracy", "tie_rate"))
    return {key: _finite(v) for key, v in made._asdict().items()} | counts


def _pairs(records: Sequence[Record], *, unequal: bool) -> int:
    if isinstance(records[0], Pair):
        return len(records)
    rating = _ratings(_some(list(records))[0])
    _, counts = np.unique(rating, return_counts=True)
    tied = int(np.sum(counts * (counts - 1) // 2)) if unequal else 0
    return len(rating) * (len(rating) - 1) // 2 - tied


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
