"""The training loop: steps, logs, validation, checkpoints; resumable at any moment, bit for bit."""

import contextlib
import functools
import operator
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from rmjax import memory
from rmjax.train import checkpoint, metrics
from rmjax.train.parallel import Layout
from rmjax.train.state import State


class Every(NamedTuple):
    """How often, in steps."""

    log: int
    validate: int
    save: int


class Stopped(Exception):
    """SIGTERM came: the state is saved and the run can go on."""


class Diverged(Exception):
    """A loss or gradient was not finite; `step` is the first such step, `seed` the state it hit."""

    def __init__(self, step: int, seed: int):
        """step, seed: counted from 0."""
        super().__init__(f"non-finite loss or gradient at step {step}")
        self.step, self.seed = step, seed


# A batch, or what makes batches of the parameters as they are once it is their turn.
Part = Mapping[str, Any] | Callable[[PyTree], list[Mapping[str, Any]]]
# prepare(params, carry, item) -> the batches of this step, the carry after it, and figures to log.
Prepare = Callable[
    [PyTree, dict[str, Any], Any],
    tuple[list[Part], dict[str, Any], Mapping[str, float]],
]


def unfolded(part: Part, params: PyTree) -> list[Mapping[str, Any]]:
    """The batches of a part."""
    return part(params) if callable(part) else [part]


def as_it_is(
    params: PyTree, carry: dict[str, Any], item: Any
) -> tuple[list[Part], dict[str, Any], Mapping[str, float]]:
    """The item itself is the step's only batch."""
    del params
    return [item], carry, {}


class Tally(NamedTuple):
    """What training took, over all resumed parts of it."""

    seconds: float = 0.0  # in steps after the first of each part
    compile_seconds: float = 0.0  # first steps
    steps: int = 0
    tokens: int = 0
    examples: int = 0

    def compiled(self, seconds: float) -> "Tally":
        """With a first step that took so long."""
        return self._replace(compile_seconds=self.compile_seconds + seconds)


def train(
    step: Callable,
    state: State,
    frozen: PyTree,
    batches: Callable[[int], Iterable[Any]],
    layout: Layout,
    *,
    steps: int,
    folder: Path,
    every: Every,
    validate: Callable[[State], Mapping[str, float]],
    best_metric: str,
    describe: Mapping[str, Any],
    progress: metrics.Log,
    prepare: Prepare = as_it_is,
    carry: Mapping[str, Any] | None = None,
) -> Tally:
    """Trains to `steps`, from the checkpoint in folder/checkpoints/last where there is one.

    step: compiled by the layout. state: placed by it; donated. batches(k): host batches from step k on, or what
      `prepare` makes them of: it sees the current parameters, and may give several, each of which is an update.
    carry: JSON that `prepare` passes from step to step, at the start; kept with each checkpoint.
    validate: a state -> metrics, run every `every.validate` steps and at the end; the highest `best_metric`
      decides checkpoints/best.
    describe: JSON kept with each checkpoint (config, tokenizer).
    Raises: Diverged (the last good checkpoint stays), Stopped after SIGTERM (saved).
    """
    last, best = folder / "checkpoints/last", folder / "checkpoints/best"
    state, run = _begun(last, state, layout, carry or {})
    log = metrics.Writer(folder, run.step)

    def tell(values: Mapping[str, float]) -> None:
        log(run.step, values)
        progress(run.step, values)

    def due(often: int) -> bool:
        return run.step == steps or run.step % often == 0

    start, window, clock, usual = run.step, [], time.perf_counter(), np.inf
    with _sigterm() as stop, contextlib.closing(log):
        for item in batches(start):
            parts, carried, told = prepare(state.params, run.carry, item)
            for part in parts:
                for batch in unfolded(part, state.params):
                    _settle(state, usual)
                    state, means = step(state, frozen, layout.put_batch(batch))
                    window.append(_update(means, batch, told))
            run = run._replace(step=run.step + 1, carry=carried)
            if run.step == start + 1:
                jax.block_until_ready(state)
                now = time.perf_counter()
                run = run._replace(tally=run.tally.compiled(now - clock))
                usual = float(memory.resident())
                # Their tokens are not timed.
                clock, window = now, [u._replace(tokens=0, examples=0) for u in window]
            stopping = stop.is_set()  # asked once: a signal that comes later finds the next step
            if not (stopping or due(every.log) or due(every.validate) or due(every.save)):
                continue
            _check_good(layout.value(state.bad_step))  # waits for the device
            tally, values = _close(window, run.tally, layout, time.perf_counter() - clock)
            run, window, improved = run._replace(tally=tally), [], False
            tell(values)
            if due(every.validate):
                found = validate(state)
                tell(found)
                if improved := found[best_metric] > run.best:
                    run = run._replace(best=found[best_metric])
                    about = {**describe, "step": run.step, "metric": best_metric, "value": run.best}
                    checkpoint.save(best, run.step, {"params": layout.get(state.params)}, about)
            # After a new best too, or a resumed run could find one from its own future.
            if stopping or improved or due(every.save):
                _save(last, state, run, layout, describe)
            if stopping and run.step < steps:
                raise Stopped(f"stopped by SIGTERM after step {run.step} of {steps}; saved")
            clock = time.perf_counter()
    return run.tally


class _Run(NamedTuple):
    """Where training stands beside its state: kept with each checkpoint."""

    step: int
    tally: Tally
    best: float  # of the watched metric; -inf before the first validation
    carry: dict[str, Any]


def _begun(
    last: Path, state: State, layout: Layout, carry: Mapping[str, Any]
) -> tuple[State, _Run]:
    """The state and run of the last checkpoint; without one `state` as it is and a run at its start."""
    if checkpoint.latest(last) is None:
        return state, _Run(0, Tally(), -np.inf, dict(carry))
    about = checkpoint.about(last)
    best = -np.inf if about["best"] is None else about["best"]
    found = _Run(about["step"], Tally(*about["tally"]), best, about.get("carry", dict(carry)))
    return layout.put(checkpoint.restore(last, layout.get(state))), found


def _save(last: Path, state: State, run: _Run, layout: Layout, describe: Mapping[str, Any]) -> None:
    best = run.best if np.isfinite(run.best) else None
    about = {**describe, **run._asdict(), "tally": list(run.tally), "best": best}
    checkpoint.save(last, run.step, layout.get(state), about)


def _settle(state: State, usual: float) -> None:
    """On CPU waits for the update before: each that is dispatched takes working memory of its own at once.

    For all of it: metrics are there before that memory is free. usual: bytes that the process had after its first step.
    """
    if jax.default_backend() == "cpu":
        jax.block_until_ready(state)
        memory.release(beyond=1.75 * usual)  # rarely: its pages come back one by one


def _check_good(bad_step: np.ndarray) -> None:
    """Raises: Diverged where a step of any seed was bad, naming the first."""
    bad = np.atleast_1d(bad_step)
    if bad.max() >= 0:
        seed = int(np.where(bad >= 0, bad, np.iinfo(bad.dtype).max).argmin())
        raise Diverged(int(bad[seed]), seed)


class _Update(NamedTuple):
    """One call of the step: its metrics, still on the device, and what it was given."""

    means: PyTree
    tokens: int
    examples: int
    told: Mapping[str, float]


def _update(means: PyTree, batch: Mapping[str, Any], told: Mapping[str, float]) -> _Update:
    count = lambda name: int((batch[name] > 0).sum())
    read = count("encoder_segments") if "encoder_segments" in batch else 0
    return _Update(means, count("segments") + read, count("text_weight"), told)


def _close(
    window: list[_Update], tally: Tally, layout: Layout, seconds: float
) -> tuple[Tally, dict[str, float]]:
    """Adds a window of updates to the tally and averages its metrics, by weight."""
    fetched = [jax.tree.map(layout.value, update.means) for update in window]
    total = {
        name: functools.reduce(operator.add, [m[name] for m in fetched]) for name in fetched[0]
    }
    values = {f"train/{name}": float(np.mean(mean.value)) for name, mean in total.items()}
    values |= {name: float(np.mean([u.told[name] for u in window])) for name in window[-1].told}
    timed = [update for update in window if update.tokens]
    tokens = sum(update.tokens for update in timed)
    tally = tally._replace(
        seconds=tally.seconds + seconds,
        steps=tally.steps + len(window),
        tokens=tally.tokens + tokens,
        examples=tally.examples + sum(update.examples for update in timed),
    )
    if timed:
        values["tokens_per_second"] = tokens / seconds
    return tally, values


@contextlib.contextmanager
def _sigterm() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, while the block runs in the main thread."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)
