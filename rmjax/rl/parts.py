"""What a policy run is made of."""

from collections.abc import Callable
from typing import Any, NamedTuple

from rmjax.data import pipeline
from rmjax.data.language import Reads
from rmjax.data.records import Data
from rmjax.inference.backbones import Backbone
from rmjax.models.policy import Policy
from rmjax.models.transformer import LanguageModel
from rmjax.rl import rollout
from rmjax.train import parallel
from rmjax.train.state import Params, State


class Parts(NamedTuple):
    """A run, ready to start."""

    data: Data
    backbone: Backbone
    reads: Reads
    module: Policy
    sampler: LanguageModel  # the same without a critic, as `sampling` takes it
    reference: Params  # placed: the policy at the start
    batches: pipeline.Batches  # of the data set
    rollouts: rollout.Plan | None
    layout: parallel.Layout
    step: Callable
    members: Callable[[Params, Any], Params] | None  # of an evolution's generation
    state: State
    frozen: Params
    asked: Params  # placed: what the step reads beside `frozen`, of the reward model of relaxed()
    parameters: int
    notes: list[str]
