"""Who agrees with the mean human rating: one rater, VADER, our reward models (Hutto & Gilbert 2014, Table 4)."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from rmjax import lookup
from rmjax.assembly import data
from rmjax.data.records import RatedText, fingerprint
from rmjax.errors import UserError
from rmjax.evaluation import agreement, classification, ranking, statistics
from rmjax.inference import run_folder
from rmjax.rewards import rules
from rmjax.runs.tables.render import Table

Record = dict[str, Any]
FIGURES = ("r", "precision", "recall", "f1")
HUMAN, VADER = "one human rater", "VADER"
# As printed in the paper: r, precision, recall, F1.
PUBLISHED: Mapping[tuple[str, str], tuple[str, str, str, str]] = {
    (HUMAN, "tweets"): (".888", ".95", ".76", ".84"),
    (HUMAN, "movie"): (".899", ".95", ".90", ".92"),
    (HUMAN, "amazon"): (".911", ".94", ".80", ".85"),
    (HUMAN, "nyt"): (".745", ".87", ".55", ".65"),
    (VADER, "tweets"): (".881", ".99", ".94", ".96"),
    (VADER, "movie"): (".451", ".70", ".55", ".61"),
    (VADER, "amazon"): (".565", ".78", ".55", ".63"),
    (VADER, "nyt"): (".492", ".69", ".49", ".55"),
}
DOMAINS = tuple(domain for who, domain in PUBLISHED if who == HUMAN)
NEUTRAL = 0.05  # VADER's compound between -0.05 and 0.05 is the neutral class
COLUMNS = ("domain", "split", "who", *FIGURES, "n", "documents", "seeds", "verdict", "run")
NOTES = (
    "Cells: ours [95% interval] / published. Published figures, all on all texts: Hutto & Gilbert 2014, Table 4.",
    "Intervals: bootstrap over documents (1,000 resamples), of precision, recall and F1 Wilson's at the documents' "
    "effective number; a model of several seeds has Student's t over seeds.",
    "r: Pearson's, with the mean human rating. One human rater: every single rating against the mean that contains "
    "it, pooled, as in the paper; against the others: against the mean of the text's other ratings, the fair bar. "
    "Noise ceiling: the largest r to expect of any model, from random halves of the panels.",
    "Precision, recall, F1: of three classes, weighted by their true shares; true: sign of the mean rating; a "
    "rater's: sign of the rating; VADER's: compound at +-0.05.",
    "Verdict: exact = same data and protocol, within .001 or the printed digits; differs = the same, with ours less "
    "published of the figures that are not; comparable = same data, held-out texts only. VADER here is the engine "
    "of package 3.3.2, which is younger than the paper.",
)


def make(runs: Sequence[Sequence[Path]]) -> Table:
    """The table of all texts, of the held-out ones, and of the models of finished reward runs on human ratings.

    runs: folders; several together are a committee, whose score is the mean of their predicted ratings.
    Raises: UserError naming the folder that is no such run.
    """
    loaded = data.human_ratings()
    split = lambda records: [cast(RatedText, r) for r in records]
    test = split(loaded.test)
    held = fingerprint(test)
    models = []
    for homes in runs:
        models += model_rows(homes[0], held) if len(homes) == 1 else committee_rows(homes, test)
    everything = split([*loaded.train, *loaded.validation, *loaded.test])
    records = []
    for domain in DOMAINS:
        records += paper_rows("all", [r for r in everything if r.domain == domain])
        own = [r for r in test if r.domain == domain]
        records += paper_rows("held out", own) + bar_rows(own)
        records += [row for row in models if row["domain"] == domain]
    title = "Agreement with the mean human rating (Hutto & Gilbert 2014, Table 4)"
    return Table(title, COLUMNS, records, NOTES)


def paper_rows(split: str, records: Sequence[RatedText]) -> list[Record]:
    """The rows of one rater and of VADER, by the paper's protocol, over texts of one domain.

    split: "all" or "held out".
    """
    resamples = statistics.resample([r.document for r in records])
    mean = np.array([r.rating for r in records])
    text = np.repeat(np.arange(len(records)), [len(r.ratings) for r in records])
    single = np.concatenate([r.ratings for r in records])
    pooled = resamples.of(text)
    compound = rules.vader([r.text for r in records])
    above, below = compound >= NEUTRAL, compound <= -NEUTRAL
    found = {
        HUMAN: {
            "r": ranking.pearson(single, mean[text], pooled),
            **classification.weighted(np.sign(mean)[text], np.sign(single), pooled),
        },
        VADER: {
            "r": ranking.pearson(compound, mean, resamples),
            **classification.weighted(np.sign(mean), above.astype(np.float64) - below, resamples),
        },
    }
    rows = []
    for who, values in found.items():
        row = _row(who, split, records, values)
        published = PUBLISHED[who, row["domain"]]
        row |= {f"{name}_published": p for name, p in zip(FIGURES, published, strict=True)}
        rows.append(row | {"verdict": verdict(row) if split == "all" else "comparable"})
    return rows


def bar_rows(records: Sequence[RatedText]) -> list[Record]:
    """What a model is up against on held-out texts of one domain: a rater against the others; the noise ceiling."""
    resamples = statistics.resample([r.document for r in records])
    panels = [np.array(r.ratings) for r in records]
    single = agreement.against_others(panels)
    r = ranking.pearson(single.own, single.others, resamples.of(single.text))
    ceiling = agreement.noise_ceiling(panels, resamples)
    return [
        _row("one human rater against the others", "held out", records, {"r": r}),
        _row("noise ceiling", "held out", records, {"r": ceiling}),
    ]


def model_rows(home: Path, held_out: str) -> Iterator[Record]:
    """The rows of a finished reward run, one a domain.

    held_out: fingerprint of the held-out texts, which must be those of the run.
    Raises: UserError naming the folder if it is no finished reward run on these human ratings.
    """
    results, config = _checked(home, held_out)
    for domain in DOMAINS:
        figure = results["metrics"][f"{domain}/pearson"]
        where = "in-domain" if domain in results["trained_domains"] else "cross-domain"
        yield {
            "domain": domain,
            "split": "held out",
            "who": f"{config['loss']}, {config['data']}: {where}",
            **{f"r{end}": figure[k] for end, k in (("", "value"), ("_low", "low"), ("_high", "high"))},
            "n": figure["n"],
            "documents": figure["documents"],
            "seeds": results["seeds"],
            "run": str(home),
        }  # fmt: skip


def committee_rows(homes: Sequence[Path], test: Sequence[RatedText]) -> list[Record]:
    """The rows of several runs together, one a domain: the mean of the ratings that they predict.

    A run's predicted rating is its score on the raters' scale, by the line that fits its validation texts best; of a
    run of several seeds, the first one's.
    Raises: as `model_rows`.
    """
    held_out, total = fingerprint(test), np.zeros(len(test))
    for home in homes:
        _checked(home, held_out)
        lines = run_folder.read_lines(home / "predictions.jsonl")
        found = {(line["domain"], line["id"]): line["predicted"] for line in lines}
        total += [found[r.domain, r.id] for r in test]
    rows = []
    for domain in DOMAINS:
        at = [i for i, r in enumerate(test) if r.domain == domain]
        records = [test[i] for i in at]
        resamples = statistics.resample([r.document for r in records])
        r = ranking.pearson(total[at], np.array([r.rating for r in records]), resamples)
        row = _row(f"mean of the {len(homes)} runs named", "held out", records, {"r": r})
        rows.append(row | {"run": " + ".join(map(str, homes))})
    return rows


def _checked(home: Path, held_out: str) -> tuple[Record, Record]:
    """results.json and config.json of a run that the table can use; else as `model_rows` says."""
    results = run_folder.finished(home)
    if results is None:
        raise UserError(
            f"{home} holds no results.json: no finished run; finish it by the command it was begun with"
        )
    config = run_folder.read_json(home / "config.json")
    rated = results.get("experiment") == "reward"
    if not rated or lookup.name_of(config["data"], key="data") != "human_ratings":
        raise UserError(
            f"{home} is no reward run on human ratings, as this table needs; leave it out of --runs"
        )
    if run_folder.read_json(home / "environment.json")["data"]["test"] != held_out:
        raise UserError(
            f"{home} was evaluated on other held-out texts than today's; train it anew in a new folder"
        )
    return results, config


def verdict(row: Mapping[str, Any]) -> str:
    """ "exact", or by how much the figures that are not exact differ: ours less published."""
    off = []
    for name in FIGURES:
        printed = row[f"{name}_published"]
        difference = row[name] - float(printed)
        same_digits = f"{row[name]:.{len(printed) - 1}f}".removeprefix("0") == printed
        if not same_digits and abs(difference) > 0.001:
            off.append(f"{name} {difference:+.3f}")
    return f"differs: {', '.join(off)}" if off else "exact"


def _row(
    who: str, split: str, records: Sequence[RatedText], values: Mapping[str, np.ndarray]
) -> Record:
    row: Record = {"domain": records[0].domain, "split": split, "who": who}
    for name, resampled in values.items():
        figure = statistics.interval(resampled)
        row |= {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
    return row | {"n": len(records), "documents": len({r.document for r in records})}
