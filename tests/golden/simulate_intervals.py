"""How often the intervals of evaluation hold the truth, by simulation; prints the tables that docstrings quote.

Run: python -m tests.golden.simulate_intervals [--what=proportions,errors,texts] [--samples=400]
Legend: M pairs or values, D documents, N texts.
"""

from collections.abc import Callable, Iterator

import numpy as np
from absl import app, flags
from scipy import special

from rmjax.evaluation import calibration, ranking, statistics
from rmjax.evaluation.statistics import Estimate

WHAT = flags.DEFINE_list("what", ["proportions", "errors", "texts"], "what is simulated")
SAMPLES = flags.DEFINE_integer("samples", 400, "samples of each setting", lower_bound=1)


def documents(rng: np.random.Generator, size: int, mean: int) -> np.ndarray:
    """The document of each value [M]: one each, or 1 + Poisson of them, `mean` on average."""
    if mean == 1:
        return np.arange(size)
    return np.repeat(np.arange(size), 1 + rng.poisson(mean - 1, size))[:size]


def outcomes(
    rng: np.random.Generator, chance: np.ndarray, document: np.ndarray, correlation: float
) -> np.ndarray:
    """0 or 1 of each value [M]; normal variables below which they are 1 share sin(pi c / 2) of theirs in a document.

    At chance 1/2 the outcomes correlate by about c.
    """
    shared = np.sin(np.pi / 2 * correlation)
    own, common = rng.normal(size=len(chance)), rng.normal(size=document[-1] + 1)[document]
    z = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
    return (special.ndtr(z) < chance).astype(float)


def covered(found: list[Estimate], true: float) -> str:
    value, low, high = np.transpose(found)
    above, below = np.mean(low > true), np.mean(high < true)
    return (
        f"covered {1 - above - below:6.1%}  above {above:5.1%}  below {below:5.1%}  "
        f"width {np.mean(high - low):.3f}  mean {np.mean(value):.3f}"
    )


def proportions(samples: int) -> None:
    for mean, correlation in ((1, 0.0), (4, 0.0), (4, 0.3)):
        for size in (13, 50, 100, 500):
            for p in (0.02, 0.1, 0.5, 0.9, 0.98):
                rng, found = np.random.default_rng(0), []
                for _ in range(samples):
                    document = documents(rng, size, mean)
                    values = outcomes(rng, np.full(size, p), document, correlation)
                    drawn = statistics.resample(list(map(str, document)), count=400)
                    found.append(statistics.interval(drawn.proportion(values)))
                print(
                    f"n {size:4}  {mean} a document  r {correlation}  p {p:4}  {covered(found, p)}"
                )
    for size in (13, 50, 100):  # pair accuracy over all pairs of texts: 1/2 + asin(rho) / pi
        for p in (0.5, 0.7, 0.9, 0.98):
            rng, found, rho = np.random.default_rng(0), [], np.sin(np.pi * (p - 0.5))
            for _ in range(samples):
                score, other = rng.normal(size=(2, size))
                rating = rho * score + np.sqrt(1 - rho**2) * other
                drawn = statistics.resample(list(map(str, range(size))), count=400)
                made = ranking.pairs([score], [rating], [np.arange(size)], drawn)
                found.append(statistics.interval(made["pair_accuracy"]))
            print(f"all pairs of {size:4} texts  p {p:4}  {covered(found, p)}")


Curve = Callable[[np.ndarray], np.ndarray]  # from the predicted to the true probability


def curves(predicted: np.ndarray, error: float) -> Iterator[tuple[str, Curve]]:
    """Ways to be wrong by `error` on average over the predictions [many]; those that can be so wrong."""
    ends = np.quantile(predicted, [0.0, 0.5, 0.8])
    rank = lambda p: np.searchsorted(order, p) / len(order)
    order = np.sort(predicted)
    forms: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
        "shift": lambda p, x: p - x,
        "overconfident": lambda p, x: special.expit(special.logit(p) / (1 + x)),
        "underconfident": lambda p, x: special.expit(special.logit(p) * (1 + x)),
        "crossing": lambda p, x: p + x * (1 - 2 * rank(p)),
        "top fifth": lambda p, x: np.where(p > ends[2], p - x, p),
    }
    for name, form in forms.items() if error else [("calibrated", lambda p, x: p)]:
        of = lambda p, x, form=form: np.clip(form(p, x), 0.0, 1.0)
        low, high = 0.0, 30.0
        for _ in range(50):
            middle = (low + high) / 2
            small = np.mean(np.abs(of(predicted, middle) - predicted)) < error
            low, high = (middle, high) if small else (low, middle)
        if abs(np.mean(np.abs(of(predicted, high) - predicted)) - error) < 1e-3:
            yield name, lambda p, of=of, x=high: of(p, x)


def errors(samples: int) -> None:
    """ECE of given pairs with logits of two spreads."""
    every = np.random.default_rng(1).normal(size=100_000)
    for size in (120, 1000):
        for mean, correlation in ((1, 0.0), (4, 0.3)):
            for error in (0.0, 0.05, 0.1):
                for sd in (1.0, 2.5):
                    for name, true in curves(special.expit(np.abs(every * sd)), error):
                        rng, found, rest = np.random.default_rng(0), [], []
                        for _ in range(samples):
                            document = documents(rng, size, mean)
                            logit = rng.normal(size=size) * sd
                            right = true(special.expit(np.abs(logit)))
                            agrees = outcomes(rng, right, document, correlation)
                            target = np.where(logit > 0, agrees, 1 - agrees)
                            drawn = statistics.resample(list(map(str, document)), count=0)
                            made = calibration.given_pairs(logit, target, drawn)
                            found.append(made["ece"])
                            rest.append([made[f"ece_{k}"][0] for k in ("plain", "calibrated")])
                        plain, by_chance = np.mean(rest, axis=0)
                        print(
                            f"M {size:4}  {mean} a document  sd {sd}  ECE {error:4} {name:14}  "
                            f"{covered(found, error)}  plain {plain:.3f}  by chance {by_chance:.3f}"
                        )


def texts(samples: int) -> None:
    """ECE over all pairs of rated texts: the score is the mean of a text's quality given what a model sees of it.

    Five raters each say the quality plus noise; a rater prefers a text with a probability that is normal in the gap, so
    the link is exact, and a wrong scale of the gap makes any error.
    """
    for size, mean in ((120, 1), (300, 1), (120, 4)):
        for error in (0.0, 0.05, 0.1):
            for sees in (0.5, 0.9):
                rng = np.random.default_rng(1)
                noise = np.sqrt(2 * (1 - sees) + 2 * 0.5**2)
                gap = np.abs(rng.normal(size=100_000)) * np.sqrt(2 * sees) / noise
                over = lambda x, gap=gap: np.mean(np.abs(special.ndtr(gap * x) - special.ndtr(gap)))
                low, high = 1.0, 100.0
                for _ in range(50):
                    middle = (low + high) / 2
                    low, high = (middle, high) if over(middle) < error else (low, middle)
                if over(high) < error - 1e-3:
                    continue
                rng, found, rest = np.random.default_rng(0), [], []
                for _ in range(samples):
                    document = documents(rng, size, mean)
                    seen, hidden, common = rng.normal(size=(3, size))
                    if mean > 1:
                        hidden = np.sqrt(0.7) * hidden + np.sqrt(0.3) * common[document]
                    quality = np.sqrt(sees) * seen + np.sqrt(1 - sees) * hidden
                    said = quality[:, None] + 0.5 * rng.normal(size=(size, 5))
                    target = np.mean(said[:, None, :, None] > said[None, :, None, :], axis=(2, 3))
                    np.fill_diagonal(target, 0.5)
                    score = np.sqrt(sees) * seen / noise * high
                    gaps = score[:, None] - score
                    logit = special.logit(np.clip(special.ndtr(gaps), 1e-9, 1 - 1e-9))
                    drawn = statistics.resample(list(map(str, document)), count=0)
                    made = calibration.figures((logit - logit.T) / 2, target, drawn)
                    found.append(made["ece"])
                    rest.append([made[f"ece_{k}"][0] for k in ("plain", "calibrated")])
                plain, by_chance = np.mean(rest, axis=0)
                print(
                    f"all pairs of {size} texts  {mean} a document  sees {sees}  ECE {error:4}  "
                    f"{covered(found, error)}  plain {plain:.3f}  by chance {by_chance:.3f}"
                )


def main(argv: list[str]) -> None:
    del argv
    for name in WHAT.value:
        print(f"\n{name}: 95% intervals, {SAMPLES.value} samples each", flush=True)
        {"proportions": proportions, "errors": errors, "texts": texts}[name](SAMPLES.value)


if __name__ == "__main__":
    app.run(main)
