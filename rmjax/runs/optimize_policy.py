"""Trains a language model, by likelihood or against a reward: one config, one folder."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rmjax import report
from rmjax.assembly import policy as assembly
from rmjax.assembly import training
from rmjax.data import language, pipeline
from rmjax.data.records import Data, Prompt, Record, Text
from rmjax.errors import UserError
from rmjax.evaluation import overoptimization
from rmjax.inference import run_folder
from rmjax.rl import (
    episode_evaluation,
    kl_penalty,
    likelihood,
    off_policy,
    policy_evaluation,
    relaxed,
    reward_functions,
    rollout,
)
from rmjax.rl.packing import Texts
from rmjax.rl.parts import Parts
from rmjax.rl.reward_functions import Reward
from rmjax.runs import progress, resume, speed
from rmjax.train import checkpoint, loop, metrics

KNOWN = "rewards.npy"  # of the data's own answers


class _Tools(NamedTuple):
    """What a run measures policies by, compiled once.

    log_probs(params, examples): of each text's tokens to predict.
    predicts(params, records): how well a policy predicts the records' answers; None of an environment, without any.
    write(params, records): what it answers to their prompts, or plays from them; None without a reward.
    does: the functions of a rollout. play: what writes its samples.
    """

    log_probs: likelihood.LogProbs
    predicts: Callable[[Any, Sequence[Record]], likelihood.Counted] | None
    write: Callable[[Any, Sequence[Record]], policy_evaluation.Written] | None
    does: rollout.Functions
    play: rollout.Write


def run(*, config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Trains the language model that a config names; the same command again goes on or reports.

    Args:
      config: file and name, such as configs/policy.py:gpt; change a line with --config.KEY=VALUE.
      workdir: folder of this run; a new one, or that of the same run begun before.

    Returns: what results.json holds; {"finished": False} after SIGTERM.
    Raises: UserError on what the user can mend.
    """
    home, say = Path(workdir), progress.CONSOLE.print
    chosen = assembly.plan(config)
    run_folder.check_config(home, config)
    if done := resume.reported(home):
        return show(done)
    loaded = assembly.prompted(chosen, chosen.records())
    hashes = training.hashes(loaded)
    run_folder.check_data(home, hashes)
    choices = resume.choices(home, config)
    found, reads = assembly.backbone(config, chosen, loaded, choices["date"])
    prompts = prompts_of(loaded)
    rewards = {
        key: made
        for key in ("reward", "gold")
        if (made := reward_functions.make(config, key, prompts, whole=chosen.words > 0)) is not None
    }
    known, given = off_policy.rewards(config, chosen.terms, loaded.train), None
    if "reward" in rewards and not config.samples:
        known = given = _data_rewards(home, loaded.train, rewards["reward"])
    frozen_reward = None
    if chosen.relaxed and config.samples:
        frozen_reward = relaxed.load(config, reads, loaded.train, whole=chosen.words > 0)
    parts = assembly.assemble(
        config, chosen, loaded, found, reads, choices["dtype"], known, frozen_reward
    )
    tools = _tools(config, chosen, parts, rewards)
    run_folder.begin(
        home, config, hashes, choices
    )  # all is checked: what is refused leaves no folder
    if given is not None:
        run_folder.write_array(home / KNOWN, given)
    kind = "seeds" if chosen.environment else loaded.kind
    say(
        f"{len(loaded.train):,} training {kind}, {parts.parameters:,} parameters, {_size(parts)}, "
        f"{parts.layout.name}, {choices['dtype']}"
    )
    for note in parts.notes:
        progress.note(note)
    try:
        tally = _train(home, config, chosen, parts, tools, choices)
    except loop.Stopped as error:
        say(f"{error}; the same command goes on from there")
        return {"finished": False}
    results = _evaluate(home, config, parts, tools, tally)
    run_folder.write_json(home / "results.json", results)
    report.write(home)
    for warning in results["warnings"]:
        say(f"warning: {warning}")
    say(f"Done: {home}/results.json, {home}/report.html")
    return show(results)


def prompts_of(loaded: Data) -> dict[str, Prompt]:
    """All prompts of the data by their text, as a learned reward is asked of them."""
    records = [*loaded.train, *loaded.validation, *loaded.test]
    return {language.said(r.prompt): r.prompt for r in records}


def show(results: Mapping[str, Any]) -> dict[str, Any]:
    """Prints the figures and gives the results back."""
    progress.CONSOLE.print(progress.figures(results))
    return dict(results)


def _size(parts: Parts) -> str:
    """How long the run is, and how large its steps."""
    if parts.rollouts is not None:
        bounds = parts.rollouts.bounds
        return (f"rollouts: {parts.rollouts.steps} of {bounds.prompts} x {bounds.group_size} samples, "
                f"updates: {parts.rollouts.updates}")  # fmt: skip
    shape = parts.batches.shape
    return (f"{len(parts.batches)} steps of {shape.rows} x {shape.row_length} tokens "
            f"({parts.batches.padding:.1%} padding)")  # fmt: skip


def _steps(parts: Parts) -> int:
    """Steps of the loop: rollouts where there are any, else updates."""
    return len(parts.batches) if parts.rollouts is None else parts.rollouts.steps


def _data_rewards(home: Path, records: Sequence[Record], reward: Reward) -> np.ndarray:
    """The reward of each record's own answer; once computed it is in the run folder, for it takes a while."""
    if (home / KNOWN).exists():
        return np.load(home / KNOWN)
    progress.CONSOLE.print(f"computing the rewards of {len(records):,} texts of the data")
    answers = [language.answers(r, compare=False)[0] for r in records]
    prompts = [language.said(r.prompt) for r in records]
    stopped = np.array([r.stopped if isinstance(r, Text) else True for r in records])
    return reward(Texts(prompts, answers, answers, stopped))


def _train(
    home: Path,
    config: Any,
    chosen: assembly.Plan,
    parts: Parts,
    tools: _Tools,
    choices: Mapping[str, Any],
) -> loop.Tally:
    rollouts, steps = parts.rollouts, _steps(parts)
    start = resume.begin(home, parts.frozen, parts.layout, steps)
    prepare, batches, carry = loop.as_it_is, lambda k: pipeline.iterate(parts.batches, k), {}
    if rollouts is not None:
        prepare = rollout.prepare(
            tools.does,
            chosen.credit,
            rollouts.bounds,
            tools.play,
            seed=config.seed,
            max_kl=config.max_kl,
            measured=rollout.measures(config, chosen.reads, chosen.critic.offers),
        )
        batches, carry = lambda k: map(rollouts.item, range(k, steps)), chosen.credit.start
    elif any("reference" in name for name in chosen.reads):
        prepare = _referring(parts, tools, chosen.reads)
    watched = "log_prob" if tools.write is None else "objective"
    if tools.write is None and _weighed(chosen, parts.data.validation):
        watched = "logged_reward"
    try:
        with progress.bar(steps, start) as shown:
            return loop.train(
                parts.step,
                parts.state,
                {**parts.frozen, **parts.asked},
                batches,
                parts.layout,
                steps=steps,
                folder=home,
                every=loop.Every(
                    config.log_every, math.ceil(steps / config.validations), config.save_every
                ),
                validate=_validation(home, config, chosen, parts, tools),
                best_metric=f"validation/{watched}",
                describe=_description(config, parts, choices),
                progress=shown,
                prepare=prepare,
                carry=carry,
            )
    except rollout.Exploded as error:
        raise UserError(
            f"the policy is {error.kl:.1f} nats a text from the first one at step {error.step}, beyond max_kl="
            f"{config.max_kl}; {resume.kept(home)}. Raise --config.kl or lower the learning rate in --config.schedule; "
            "then use a new --workdir"
        ) from error
    except loop.Diverged as error:
        raise UserError(
            f"the loss or its gradient was not finite at update {error.step}; {resume.kept(home)}. Lower the learning "
            "rate in --config.schedule, or set --config.clip_norm=1.0; then use a new --workdir"
        ) from error


def _referring(parts: Parts, tools: _Tools, reads: set[str]) -> loop.Prepare:
    """The stage of losses that compare with the reference on texts of the data."""
    examples, start = parts.batches.examples, _start(parts)
    longest = int(examples.lengths.max())

    def prepare(params, carry, batch):
        more = {"reference_log_probs": tools.does.reference(batch)["log_probs"]}
        if "kto_point" in reads:
            texts = batch["text"][batch["text_weight"] > 0]
            other = language.mismatched(examples, texts, longest)
            now, before = (tools.log_probs(p, other) for p in (params, start))
            point = float(kl_penalty.kto_point(jnp.array(now - before)))
            more["kto_point"] = np.full(batch["text_weight"].shape, point, np.float32)
        return [batch | more], carry, {}

    return prepare


def _description(config: Any, parts: Parts, choices: Mapping[str, Any]) -> dict[str, Any]:
    backbone = parts.backbone._replace(layout=parts.reads.reader.layout)
    return {
        "config": config.to_dict(),
        **backbone.reading(),
        "transformer": dataclasses.asdict(parts.backbone.config),
        "stop": parts.backbone.stop,
        "stop_ids": parts.reads.stop_ids,
        "dtype": choices["dtype"],
    }


def _tools(
    config: Any, chosen: assembly.Plan, parts: Parts, rewards: Mapping[str, Reward]
) -> _Tools:
    log_probs = likelihood.make_log_probs(
        parts.module.apply, parts.layout, parts.frozen, parts.backbone.tokenizer.pad_id
    )
    does = policy_evaluation.functions(config, parts, rewards.get("reward", no_reward))
    play = player(config, chosen, parts, does)
    if chosen.environment is not None:
        return _Tools(
            log_probs, None, episode_evaluation.writer(config, parts, does, play), does, play
        )

    def predicts(params, records) -> likelihood.Counted:
        examples = language.encode(records, parts.reads, config.max_length).examples
        return likelihood.counted(log_probs(params, examples), examples, records)

    def write(params, records) -> policy_evaluation.Written:
        prompts, _ = rollout.prompts_of(records, parts.reads, config.max_prompt)
        return policy_evaluation.write(config, does, params, prompts, rewards, parts)

    return _Tools(log_probs, predicts, write if "reward" in rewards else None, does, play)


def _weighed(chosen: assembly.Plan, records: Sequence[Record]) -> bool:
    """Whether a policy's reward can be told from these records, as a term weighs those it learns from."""
    known = language.rewards(records), language.log_probs(records)
    return off_policy.RATIO in chosen.reads and all(x is not None for x in known)


def player(
    config: Any, chosen: assembly.Plan, parts: Parts, does: rollout.Functions
) -> rollout.Write:
    """What writes the samples of a rollout: answers, those of an evolution's population, or episodes."""
    if chosen.environment is not None:
        return episode_evaluation.player(config, parts, chosen.environment)
    if parts.members is not None:
        does = policy_evaluation.of_population(config, parts, does)
    ratio = 0.0 if parts.rollouts is None else parts.rollouts.bounds.encoder_ratio
    return rollout.answering(does, parts.reads, encoder_ratio=ratio, parts=config.rollout_parts)


def no_reward(texts: Texts) -> np.ndarray:
    """Of texts that nobody rewards, or an environment does: 0 [N]."""
    return np.zeros(len(texts.completions), np.float32)


def _some(records: Sequence[Record], count: int) -> list[Record]:
    """At most `count` records, evenly spaced, so that all domains are among them."""
    return [records[i] for i in policy_evaluation.spaced(len(records), count)]


def _validation(
    home: Path, config: Any, chosen: assembly.Plan, parts: Parts, tools: _Tools
) -> Callable[[Any], dict[str, float]]:
    """What a state is worth on the validation documents: how well it predicts them, and what its answers earn.

    Some of the answers are kept in samples_by_step.jsonl, the first policy's as those of step 0.
    """
    records = parts.data.validation
    asked = _some(records, config.validation_prompts)
    updates = 1 if parts.rollouts is None else parts.rollouts.updates // parts.rollouts.steps
    if tools.write is not None and not (home / policy_evaluation.BY_STEP).exists():
        policy_evaluation.keep(home, 0, asked, tools.write(_start(parts), asked))

    def validate(state) -> dict[str, float]:
        means = {}
        if tools.predicts is not None:
            found = tools.predicts(state.params, records)
            means["log_prob"] = -float(found.nats.sum() / found.tokens.sum())
            told = likelihood.earned(found, records, [r.document for r in records])
            means |= {name: figure["value"] for name, figure in told.items()}
        if tools.write is not None:
            written = tools.write(state.params, asked)
            step = int(parts.layout.value(state.step)) // updates
            policy_evaluation.keep(home, step, asked, written)
            means |= written.means()
            means["objective"] = means["reward"] - chosen.credit.penalty.of(means["kl"])
        return {f"validation/{name}": value for name, value in means.items()}

    return validate


def _evaluate(
    home: Path, config: Any, parts: Parts, tools: _Tools, tally: loop.Tally
) -> dict[str, Any]:
    """Figures of the best parameters on the held-out records; gives results.json."""
    progress.CONSOLE.print("evaluating on held-out documents")
    best = home / "checkpoints/best"
    params = parts.layout.put(checkpoint.restore(best)["params"])
    test = parts.data.test
    figures = {}
    if tools.predicts is not None:
        figures |= _predicted(tools.predicts, {"": params, "reference/": _start(parts)}, test)
    if tools.write is not None:
        asked = _some(test, config.test_prompts)
        after, before = (tools.write(p, asked) for p in (params, _start(parts)))
        figures |= policy_evaluation.figures(
            after, before, [f"{r.domain}/{r.document}" for r in asked]
        )
        run_folder.write_lines(
            home / "samples.jsonl", policy_evaluation.lines(asked, after, before)
        )
    per_second = lambda amount: amount / max(tally.seconds, 1e-9)
    return {
        "experiment": "policy",
        "command": run_folder.read_json(home / "environment.json")["command"],
        "finished": True,
        "seconds": tally.seconds + tally.compile_seconds,
        "steps": _steps(parts),
        "updates": tally.steps,
        "interval": "95% over documents",
        "throughput": {
            "tokens_per_second": per_second(tally.tokens),
            "examples_per_second": per_second(tally.examples),
            "compile_seconds": tally.compile_seconds,
        },
        "parameters": parts.parameters,
        "peak_memory_bytes": speed.peak_memory(),
        "best_step": checkpoint.about(best)["step"],
        "notes": parts.notes,
        "warnings": _warnings(home),
        "metrics": figures,
    }


def _predicted(
    predicts: Callable[[Any, Sequence[Record]], likelihood.Counted],
    policies: Mapping[str, Any],
    records: Sequence[Record],
) -> dict[str, Any]:
    """How well each policy, by its prefix in results.json, predicts the answers of each domain's records."""
    figures = {}
    for domain in sorted({r.domain for r in records}):
        own = [r for r in records if r.domain == domain]
        documents = [r.document for r in own]
        for who, policy in policies.items():
            counted = predicts(policy, own)
            found = likelihood.figures(counted, documents)
            found |= likelihood.earned(counted, own, documents)
            figures |= {f"{who}{domain}/{name}": figure for name, figure in found.items()}
    return figures


def _warnings(home: Path) -> list[str]:
    """What the validations of the run say against it."""
    names = "validation/reward", "validation/gold"
    told = [line for line in metrics.read(home) if all(name in line for name in names)]
    proxy, gold = (np.array([line[name] for line in told], np.float64) for name in names)
    found = overoptimization.parted(proxy, gold)
    return [found] if found else []


def _start(parts: Parts) -> Any:
    """The trained part of the reference policy, placed."""
    return {name: parts.reference[name] for name in parts.state.params}
