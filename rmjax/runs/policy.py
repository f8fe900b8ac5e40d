"""Trains a language model, by likelihood or against a reward: one config, one folder."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from rmjax.build import policy as build
from rmjax.build import training
from rmjax.data import language, pipeline
from rmjax.errors import UserError
from rmjax.runs import folder, likelihood, progress, resume, speed
from rmjax.train import checkpoint, loop


def run(*, config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Trains the language model that a config names; the same command again goes on or reports.

    Args:
      config: file and name, such as configs/policy.py:gpt; change a line with --config.KEY=VALUE.
      workdir: folder of this run; a new one, or that of the same run begun before.

    Returns: what results.json holds; {"finished": False} after SIGTERM.
    Raises: UserError on what the user can mend.
    """
    home, say = Path(workdir), progress.CONSOLE.print
    chosen = build.plan(config)
    folder.check_config(home, config)
    done = folder.finished(home)
    if done:
        say(f"This run is done: {home}/results.json, {home}/report.html")
        return show(done)
    loaded = build.prompted(chosen, chosen.records())
    hashes = training.hashes(loaded)
    folder.check_data(home, hashes)
    choices = folder.choices(home) or {
        "dtype": speed.faster_dtype() if config.dtype == "auto" else config.dtype
    }
    found, reads = build.backbone(config, chosen, loaded)
    parts = build.assemble(config, chosen, loaded, found, reads, choices["dtype"])
    folder.begin(home, config, hashes, choices)
    shape = parts.batches.shape
    say(
        f"{len(loaded.train):,} training {loaded.kind}, {sum(p.size for p in parts.params.values()):,} parameters, "
        f"{len(parts.batches)} steps of {shape.rows} x {shape.row_length} tokens "
        f"({parts.batches.padding:.1%} padding), {parts.layout.name}, {choices['dtype']}"
    )
    for note in parts.notes:
        say(f"note: {note}")
    try:
        tally = _train(home, config, parts, choices)
    except loop.Stopped as error:
        say(f"{error}; the same command goes on from there")
        return {"finished": False}
    results = _judge(home, config, parts, tally)
    folder.write_json(home / "results.json", results)
    say(f"Done: {home}/results.json")
    return show(results)


def show(results: Mapping[str, Any]) -> dict[str, Any]:
    """Prints the figures and gives the results back."""
    progress.CONSOLE.print(progress.figures(results))
    return dict(results)


def _train(home: Path, config: Any, parts: build.Parts, choices: Mapping[str, Any]) -> loop.Tally:
    steps = len(parts.batches)
    start = resume.begin(home, parts.frozen, parts.layout, steps)
    try:
        with progress.bar(steps, start) as shown:
            return loop.train(
                parts.step,
                parts.state,
                parts.frozen,
                lambda k: pipeline.iterate(parts.batches, k),
                parts.layout,
                steps=steps,
                folder=home,
                every=loop.Every(
                    config.log_every, math.ceil(steps / config.validations), config.save_every
                ),
                validate=_validation(config, parts),
                best_metric="validation/log_prob",
                describe=_description(config, parts, choices),
                progress=shown,
            )
    except loop.Diverged as error:
        raise UserError(
            f"the loss or its gradient was not finite at step {error.step}; {resume.kept(home)}. Lower the learning "
            "rate in --config.schedule, or set --config.clip_norm=1.0; then use a new --workdir"
        ) from error


def _description(config: Any, parts: build.Parts, choices: Mapping[str, Any]) -> dict[str, Any]:
    template = parts.backbone.template
    return {
        "config": config.to_dict(),
        "tokenizer": parts.backbone.tokenizer.to_json(),
        "template": template and template.about(),
        "transformer": dataclasses.asdict(parts.backbone.config),
        "stop": parts.backbone.stop,
        "dtype": choices["dtype"],
    }


def _predicts(config: Any, parts: build.Parts):
    """A function of placed parameters and records: how well the model predicts these, as `likelihood.Counted`."""
    log_probs = likelihood.make_log_probs(
        parts.module.apply, parts.layout, parts.frozen, parts.backbone.tokenizer.pad_id
    )

    def predicts(params, records) -> likelihood.Counted:
        examples = language.encode(records, parts.reads, config.max_length).examples
        return likelihood.counted(log_probs(params, examples), examples, records)

    return predicts


def _validation(config: Any, parts: build.Parts):
    predicts = _predicts(config, parts)

    def validate(state) -> dict[str, float]:
        found = predicts(state.params, parts.data.validation)
        return {"validation/log_prob": -float(found.nats.sum() / found.tokens.sum())}

    return validate


def _judge(home: Path, config: Any, parts: build.Parts, tally: loop.Tally) -> dict[str, Any]:
    """Figures of the best parameters on the held-out records; gives results.json."""
    progress.CONSOLE.print("judging on held-out documents")
    best = home / "checkpoints/best"
    params = parts.layout.put(checkpoint.restore(best)["params"])
    predicts, test = _predicts(config, parts), parts.data.test
    domains = sorted({r.domain for r in test})
    metrics = {}
    for domain in domains:
        own = [r for r in test if r.domain == domain]
        found = likelihood.figures(predicts(params, own), [r.document for r in own])
        metrics |= {f"{domain}/{name}": figure for name, figure in found.items()}
    per_second = lambda amount: amount / max(tally.seconds, 1e-9)
    return {
        "experiment": "policy",
        "command": folder.read_json(home / "environment.json")["command"],
        "finished": True,
        "seconds": tally.seconds + tally.compile_seconds,
        "steps": len(parts.batches),
        "interval": "95% over documents",
        "throughput": {
            "tokens_per_second": per_second(tally.tokens),
            "examples_per_second": per_second(tally.examples),
            "compile_seconds": tally.compile_seconds,
        },
        "peak_memory_bytes": speed.peak_memory(),
        "best_step": checkpoint.about(best)["step"],
        "notes": parts.notes,
        "metrics": metrics,
    }
