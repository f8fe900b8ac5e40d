"""Trains a reward model and evaluates it against people on held-out documents: one config, one folder."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from rmjax import report
from rmjax.assembly import reward as assembly
from rmjax.assembly import training
from rmjax.data import pipeline
from rmjax.data.records import Record
from rmjax.errors import UserError
from rmjax.evaluation import by_kind, comparison
from rmjax.inference import backbones, normalization, run_folder, scoring
from rmjax.runs import progress, resume, speed
from rmjax.train import checkpoint, forward, loop


def run(*, config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Trains the reward model that a config names; the same command again goes on or reports.

    Args:
      config: file and name, such as configs/reward.py:ratings; change a line with --config.KEY=VALUE.
      workdir: folder of this run; a new one, or that of the same run begun before.

    Returns: what results.json holds; {"finished": False} after SIGTERM.
    Raises: UserError on what the user can mend.
    """
    home, say = Path(workdir), progress.CONSOLE.print
    chosen = assembly.plan(config)
    run_folder.check_config(home, config)
    if done := resume.reported(home):
        return show(done)
    loaded = chosen.records()
    hashes = training.hashes(loaded)
    run_folder.check_data(home, hashes)
    choices = resume.choices(home, config)
    parts = assembly.assemble(config, chosen, loaded, choices["dtype"], choices["date"])
    run_folder.begin(home, config, hashes, choices)
    shape = parts.batches[0].shape
    say(
        f"{len(loaded.train):,} training {loaded.kind}, {parts.parameters:,} parameters, "
        f"{len(parts.batches[0])} steps of {shape.rows} x {shape.row_length} tokens "
        f"({parts.batches[0].padding:.1%} padding), {parts.layout.name}, {choices['dtype']}"
    )
    for note in parts.notes:
        progress.note(note)
    try:
        tally = _train(home, config, parts, choices)
    except loop.Stopped as error:
        say(f"{error}; the same command goes on from there")
        return {"finished": False}
    results = _evaluate(home, config, chosen.normalize, parts, tally)
    run_folder.write_json(home / "results.json", results)
    report.write(home)
    say(f"Done: {home}/results.json, {home}/report.html")
    return show(results)


def show(results: Mapping[str, Any]) -> dict[str, Any]:
    """Prints the comparison table and gives the results back."""
    progress.CONSOLE.print(progress.table(results))
    return dict(results)


def _train(
    home: Path, config: Any, parts: assembly.Parts, choices: Mapping[str, Any]
) -> loop.Tally:
    steps, layout = len(parts.batches[0]), parts.layout
    start = resume.begin(home, parts.frozen, layout, steps)
    validate, metric = _validation(config, parts)
    try:
        with progress.bar(steps, start) as shown:
            return loop.train(
                parts.step,
                parts.state,
                parts.frozen,
                lambda k: _stacked(parts.batches, k),
                layout,
                steps=steps,
                folder=home,
                every=loop.Every(
                    config.log_every, math.ceil(steps / config.validations), config.save_every
                ),
                validate=validate,
                best_metric=metric,
                describe=_description(config, parts, choices),
                progress=shown,
            )
    except loop.Diverged as error:
        raise UserError(_diverged(home, parts, error)) from error


def _diverged(home: Path, parts: assembly.Parts, error: loop.Diverged) -> str:
    batch = parts.batches[error.seed]
    epoch, place = divmod(error.step, len(batch.plans[0]))
    texts = np.concatenate(batch.plans[epoch][place])
    names = dict.fromkeys(batch.examples.ids[int(i)] for i in texts[:8])
    seed = f" of seed {error.seed}" if len(parts.batches) > 1 else ""
    return (
        f"the loss or its gradient was not finite at step {error.step}{seed} (epoch {epoch}, a batch with the "
        f"texts {', '.join(names)}, ...); {resume.kept(home)}. Lower the learning rate in --config.schedule, set "
        "--config.clip_norm=1.0, or look at these texts; then use a new --workdir"
    )


def _stacked(batches: list[pipeline.Batches], start: int):
    if len(batches) == 1:
        return pipeline.iterate(batches[0], start)
    streams = [pipeline.iterate(b, start) for b in batches]
    return (
        {k: np.stack([p[k] for p in parts]) for k in parts[0]}
        for parts in zip(*streams, strict=True)
    )


def _description(config: Any, parts: assembly.Parts, choices: Mapping[str, Any]) -> dict[str, Any]:
    reads = backbones.reader(parts.backbone, config.max_length, config.special_tokens)
    backbone = parts.backbone._replace(layout=reads.layout)
    return {
        "config": config.to_dict(),
        **backbone.reading(),
        "transformer": dataclasses.asdict(parts.backbone.config),
        "pooling": parts.backbone.pooling,
        "scale": parts.data.scale,
        "ties": "tie_width" in {k.split("/")[-1] for k in parts.state.params},
        "attributes": parts.data.attributes,
        "classes": parts.data.classes,
        "kind": parts.data.kind,
        "dtype": choices["dtype"],
    }


def _scores(config: Any, parts: assembly.Parts) -> Callable[[Any, list[Record]], np.ndarray]:
    """A function of placed parameters and records: raw scores as `scoring.records` gives them."""
    reader = backbones.reader(parts.backbone, config.max_length, config.special_tokens)
    score = scoring.make_score(
        forward.scores(parts.module.apply),
        parts.layout,
        parts.frozen,
        config.seeds,
        reader.tokenizer.pad_id,
        scoring.tiling(parts.backbone.config),
    )
    return lambda params, records: scoring.records(
        lambda examples: score(params, examples), reader, records
    )


def _validation(config: Any, parts: assembly.Parts):
    """The function that decides which checkpoint is best, and its metric's name, by the kind of record."""
    trained = {r.domain for r in parts.data.train}
    records = [r for r in parts.data.validation if r.domain in trained]
    scores = _scores(config, parts)
    name = f"validation/{by_kind.WATCHED[type(records[0])]}"

    def validate(state) -> dict[str, float]:
        found = scores(state.params, records)
        per_seed = [comparison.quick(records, s) for s in found]
        return {name: float(np.mean(per_seed))}

    return validate, name


def _evaluate(
    home: Path,
    config: Any,
    normalize: assembly.Normalize | None,
    parts: assembly.Parts,
    tally: loop.Tally,
) -> dict[str, Any]:
    """Scores the held-out records with the best parameters; writes predictions.jsonl; gives results.json."""
    progress.CONSOLE.print("evaluating on held-out documents")
    scorer, loaded = scoring.load(home, normalized=False), parts.data
    if normalize is not None:
        made = normalization.fix(home, normalize, loaded, scorer.records)
        scorer = scorer._replace(normalization=made)
    (test, outputs, _), validation = scorer.scored(loaded.test), scorer.records(loaded.validation)
    fitted = comparison.temperatures(loaded.validation, validation)
    run_folder.write_lines(
        home / "predictions.jsonl",
        comparison.predictions(loaded.test, test.mean(0), loaded.validation, validation.mean(0)),
    )
    link = comparison.own_link(config.loss, config.pair_arrays, outputs)
    per_second = lambda amount: amount / max(tally.seconds, 1e-9)
    lengths = parts.batches[0].examples.lengths
    flops = speed.model_flops(parts.backbone.config, lengths) / lengths.sum()
    return {
        "experiment": "reward",
        "command": run_folder.read_json(home / "environment.json")["command"],
        "finished": True,
        "seconds": tally.seconds + tally.compile_seconds,
        "steps": len(parts.batches[0]),
        "seeds": config.seeds,
        "interval": comparison.interval_name(config.seeds),
        "throughput": {
            "tokens_per_second": per_second(tally.tokens),
            "examples_per_second": per_second(tally.examples),
            "model_flops_per_second": per_second(tally.tokens * flops),
            "compile_seconds": tally.compile_seconds,
        },
        "padding": parts.batches[0].padding,
        "parameters": parts.parameters,
        "peak_memory_bytes": speed.peak_memory(),
        "best_step": checkpoint.about(home / "checkpoints/best")["step"],
        "notes": parts.notes,
        "trained_domains": sorted({r.domain for r in loaded.train}),
        "temperatures": fitted,
        "metrics": comparison.figures(
            loaded.test,
            test,
            fitted,
            loaded.validation,
            link,
            outputs=outputs,
            classes=loaded.classes,
        ),
        "reliability": comparison.reliability(loaded.test, test, fitted),
    }
