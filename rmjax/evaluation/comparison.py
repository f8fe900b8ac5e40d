"""Held-out records and their scores to figures with intervals, beside people and trivial baselines.

Legend: N records, S seeds, B resamples. Scores are [S, N, ..], each seed's as `kinds` says of the kind of record.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy import special

from rmjax import lookup
from rmjax.data.records import Pair, Process, Ranking, RatedText, Record
from rmjax.evaluation import (
    agreement,
    by_kind,
    calibration,
    ensembles,
    links,
    ranking,
    rewardbench,
    statistics,
)
from rmjax.losses import LOSSES

Figures = dict[str, dict[str, Any]]
Temperatures = Mapping[str, Sequence[float]]  # domain -> one a seed


def figures(
    test: Sequence[Record],
    scores: np.ndarray,
    fitted: Temperatures,
    validation: Sequence[Record] = (),
    link: by_kind.Link | None = None,
    reduce: Callable[[np.ndarray], np.ndarray] = ensembles.mean,
    outputs: by_kind.Outputs | None = None,
    classes: Sequence[str] = (),
) -> Figures:
    """Every figure of the model, and of people and baselines on the same records.

    fitted: what `temperatures` gave for the model; a domain that is missing takes their geometric mean.
    validation: records on which the baselines' temperatures are fitted; none, and they have no calibration.
    link: what the model's loss says of a pair, from `own_link`.
    reduce: what makes one score of several seeds', for the figures of their ensemble.
    outputs: all that the model's head gives, [S, N, ..]; None: the scores alone.
    classes: the names of ratings 0, 1, .. where texts are classified; then a head of classes has its accuracy, beside
      that of the most frequent class (of validation, where there is any).
    """
    given = {"score": scores} if outputs is None else outputs
    found = _of_scorer("", test, scores, fitted, link, given, classes)
    tuning = by_kind.baselines(validation) if validation else {}
    for who, values in by_kind.baselines(test).items():
        own = temperatures(validation, tuning[who][None]) if tuning else {}
        most = _majority(validation or test, len(test), len(classes)) if classes else None
        logits = {} if who != "majority" or most is None else {"logits": most}
        found |= _of_scorer(f"{who}/", test, values[None], own, None, logits, classes)
    for domain, records, at in by_domain(test):
        panels = [np.array(r.ratings) for r in records if isinstance(r, RatedText)]
        if len(panels) == len(records) and all(len(p) > 1 for p in panels):
            found |= _of_people(domain, records, panels)
        if len(scores) > 1:
            found |= _of_members(domain, records, scores[:, at])
    if len(scores) > 1:
        found |= _of_scorer("ensemble/", test, reduce(scores)[None], {})
    return found


# What a loss's own link reads beside the score.
_READS = {
    "rao_kupper": "tie_width",
    "gaussian_nll": "log_variance",
    "ordinal": "thresholds",
    "cross_entropy": "logits",
    "votes": "logits",
}


def own_link(
    loss: str, pair_arrays: str, offered: Collection[str] = ("score",)
) -> by_kind.Link | None:
    """What a `loss` line says of a pair; None of sums, of losses that are not proper, and with margins.

    offered: names of the head's outputs; None too where the link reads another.
    """
    terms = lookup.terms(loss, LOSSES, key="loss")
    name = terms[0].name
    if len(terms) > 1 or "margins" in pair_arrays or _READS.get(name, "score") not in offered:
        return None
    options = terms[0].function.keywords  # pyright: ignore[reportFunctionMemberAccess] (a partial)
    gap = lambda a, b: a["score"] - b["score"]
    shares = lambda a: special.softmax(a["logits"], axis=-1)
    ordered = lambda a: links.ordinal(a["score"], a["thresholds"])
    clamped = lambda a: np.clip(
        a["log_variance"], options.get("low", -10.0), options.get("high", 10.0)
    )
    bradley_terry = lambda a, b: links.bradley_terry(gap(a, b))
    classes = lambda a, b: links.distributions(shares(a), shares(b))
    return {
        "bradley_terry": bradley_terry,
        # By Luce's axiom a pair of a Plackett-Luce ranking is Bradley-Terry; a step's score is the logit itself.
        "plackett_luce": bradley_terry,
        "process": bradley_terry,
        "thurstone": lambda a, b: links.thurstone(gap(a, b), scale=options.get("scale", 1.0)),
        "rao_kupper": lambda a, b: links.rao_kupper(gap(a, b), a["tie_width"]),
        "gaussian_nll": lambda a, b: links.gaussian(gap(a, b), clamped(a), clamped(b)),
        "ordinal": lambda a, b: links.distributions(ordered(a), ordered(b)),
        "cross_entropy": classes,
        "votes": classes,
    }.get(name)


def quick(records: Sequence[Record], scores: np.ndarray) -> float:
    """The figure that validation watches (kinds.WATCHED), of one seed's scores [N, ..]: mean over domains."""
    name, found = by_kind.WATCHED[type(records[0])], []
    for _, own, at in by_domain(records):
        resamples = statistics.resample([r.document for r in own], count=0)
        if name == "pearson":
            value = ranking.pearson(scores[at], by_kind.ratings(own), resamples)
        else:
            value = by_kind.values(own, scores[at], resamples)[name]
        found.append(float(value[0]))
    return float(np.mean(np.nan_to_num(found)))  # a constant score has no r; it counts 0


def temperatures(records: Sequence[Record], scores: np.ndarray) -> dict[str, list[float]]:
    """The temperature of each domain and seed that fits the shares of raters best."""
    found = {}
    for domain, own, at in by_domain(records):
        each = (by_kind.compared(own, s[at]) for s in scores)
        found[domain] = [calibration.fit_temperature(j.logit, j.target) for j in each]
    return found


def reliability(
    records: Sequence[Record], scores: np.ndarray, fitted: Temperatures
) -> dict[str, dict[str, list[float]]]:
    """The reliability diagram of each domain, of the first seed's scores; as they are where nothing was fitted."""
    found = {}
    for domain, own, at in by_domain(records):
        made = by_kind.compared(own, scores[0][at])
        temperature = (_temperature(fitted, domain) or [1.0])[0]
        diagram = calibration.reliability(made.logit / temperature, made.target)
        found[domain] = {k: v.tolist() for k, v in diagram._asdict().items()}
    return found


def predictions(
    test: Sequence[Record],
    scores: np.ndarray,
    validation: Sequence[Record],
    validation_scores: np.ndarray,
) -> Iterator[dict[str, Any]]:
    """One line a record, for one seed's scores [N, ..]; of rated texts also the score on the raters' scale.

    That is the least-squares line from scores to ratings over the validation records.
    """
    slope, offset = 0.0, 0.0
    if isinstance(test[0], RatedText):
        slope, offset = np.polyfit(
            validation_scores.astype(np.float64), by_kind.ratings(validation), 1
        )
    for record, score in zip(test, scores, strict=True):
        line = {k: getattr(record, k) for k in ("id", "domain", "document", "prompt")}
        match record:
            case RatedText():
                line |= {"text": record.text, "rating": record.rating, "score": float(score)}
                yield line | {"predicted": float(slope * score + offset)}
            case Pair():
                line |= {"chosen": record.chosen, "rejected": record.rejected}
                yield line | {"chosen_score": float(score[0]), "rejected_score": float(score[1])}
            case Ranking():
                line |= {"completions": record.completions, "ratings": record.ratings}
                yield line | {"scores": score[: len(record.completions)].tolist()}
            case Process():
                line |= {"steps": record.steps, "labels": record.labels}
                yield line | {"scores": score[: len(record.steps)].tolist()}


def interval_name(seeds: int) -> str:
    """What the intervals are over, in words."""
    methods = f"bootstrap, {statistics.RESAMPLES:,} resamples; of rates Wilson's, of ECE by inverted tests"
    bootstrap = f"over documents ({methods})"
    if seeds == 1:
        return f"95% {bootstrap}"
    return f"95%; the model's over {seeds} seeds (Student's t), people's and baselines' {bootstrap}"


def by_domain(records: Sequence[Record]) -> Iterator[tuple[str, list[Record], np.ndarray]]:
    """Each domain in order of appearance, its records, and their places."""
    for domain in dict.fromkeys(r.domain for r in records):
        at = np.array([i for i, r in enumerate(records) if r.domain == domain])
        yield domain, [records[i] for i in at], at


def _of_scorer(
    prefix: str,
    records: Sequence[Record],
    scores: np.ndarray,
    fitted: Temperatures,
    link: by_kind.Link | None = None,
    outputs: by_kind.Outputs = MappingProxyType({}),
    classes: Sequence[str] = (),
) -> Figures:
    """The figures of one model (no prefix) or baseline: bootstrap intervals of one seed, t intervals of several."""
    found: Figures = {}
    count = statistics.RESAMPLES if len(scores) == 1 else 0
    for domain, own, at in by_domain(records):
        known = _temperature(fitted, domain)
        resamples = statistics.resample([r.document for r in own], count=count)
        per_seed = []
        for i, score in enumerate(scores):
            values = by_kind.values(own, score[at], resamples)
            given = {name: made[i][at] for name, made in outputs.items()}
            if classes and "logits" in given:
                values |= by_kind.classified(own, given["logits"], resamples)
            if known or link:
                compared = by_kind.compared(own, score[at])
                implied = None if link is None else by_kind.implied(own, given, link)
                values |= by_kind.calibrated(
                    compared, resamples, known[i] if known else None, implied
                )
            if not prefix:
                values |= by_kind.probes(own, score[at], resamples)
            per_seed.append(values)
        found |= _estimates(f"{prefix}{domain}", own, per_seed)
        if known:
            temperature = statistics.Estimate(float(np.mean(known)), math.nan, math.nan)
            found[f"{prefix}{domain}/temperature"] = _figure(own, "temperature", temperature)
    domains = [r.domain for r in records]
    if isinstance(records[0], Pair) and rewardbench.covers(domains):
        resamples = statistics.resample([r.document for r in records], count=count)
        gaps = [s[:, 0].astype(np.float64) - s[:, 1] for s in scores]
        each = [rewardbench.figures(gap, domains, resamples) for gap in gaps]
        for section, inside in rewardbench.members(domains).items():
            own = [r for r, is_inside in zip(records, inside, strict=True) if is_inside]
            found |= _estimates(f"{prefix}{section}", own, [values[section] for values in each])
    return found


def _estimates(
    place: str, records: Sequence[Record], per_seed: Sequence[Mapping[str, statistics.Figure]]
) -> Figures:
    found = {}
    for name in per_seed[0]:
        arrays = [values[name] for values in per_seed]
        more = {} if len(arrays) == 1 else {"per_seed": [_finite(float(a[0])) for a in arrays]}
        more |= {} if isinstance(arrays[0], np.ndarray) else {"bounds": [0.0, 1.0]}
        found[f"{place}/{name}"] = _figure(records, name, statistics.estimate(arrays)) | more
    return found


def _of_people(domain: str, records: list[Record], panels: list[np.ndarray]) -> Figures:
    resamples = statistics.resample([r.document for r in records])
    single = agreement.single_rater(panels, resamples)
    ceiling = agreement.noise_ceiling(panels, resamples)
    values: dict[str, tuple[str, statistics.Figure]] = {
        f"human/{domain}/{name}": (name, v) for name, v in single.items()
    }
    values[f"ceiling/{domain}/pearson"] = ("pearson", ceiling)
    return {
        key: _figure(records, name, statistics.interval(v)) for key, (name, v) in values.items()
    }


def _of_members(domain: str, records: list[Record], scores: np.ndarray) -> Figures:
    """How far seeds disagree, with intervals over documents."""
    resamples = statistics.resample([r.document for r in records])
    if isinstance(records[0], RatedText):
        found = ensembles.disagreement(scores, resamples)
    else:
        each = [by_kind.compared(records, s) for s in scores]
        gaps = np.stack([j.logit for j in each])
        found = ensembles.disagreement_within(gaps, resamples.of(each[0].record))
    return {
        f"{domain}/{name}": _figure(records, name, statistics.interval(v))
        for name, v in found.items()
    }


def _majority(records: Sequence[Record], size: int, classes: int) -> np.ndarray:
    """Logits [1, N, C] that are highest for the most frequent class of the records."""
    counts = np.bincount(by_kind.ratings(records).astype(np.int64), minlength=classes)
    return np.tile((counts == counts.max()).astype(np.float64), (1, size, 1))


def _temperature(fitted: Temperatures, domain: str) -> Sequence[float]:
    if domain in fitted or not fitted:
        return fitted.get(domain, ())
    return np.exp(np.mean(np.log(list(fitted.values())), axis=0)).tolist()


def _figure(records: Sequence[Record], name: str, made: statistics.Estimate) -> dict[str, Any]:
    return {key: _finite(v) for key, v in made._asdict().items()} | by_kind.counts(records, name)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
