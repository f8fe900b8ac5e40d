"""Whole policy runs: what their folders hold, that they go on bit for bit, every objective's step, refusals."""

import functools
import json
import math

import jax
import numpy as np
import pytest
import tokenizers

from configs.policy import NAMES, get_config
from rmjax.assembly import policy as assembly
from rmjax.data import language
from rmjax.data.encode import Reader
from rmjax.data.language import Reads
from rmjax.errors import UserError
from rmjax.inference import backbones, scoring
from rmjax.rl import off_policy, packing, policy_evaluation, reward_functions, rollout
from rmjax.runs import export, optimize_policy
from rmjax.train import checkpoint, loop, metrics
from tests.rl.test_critic import saved
from tests.runs.stopping import stopped_and_gone_on

SMALL = {
    "policy": "tiny_decoder(width=16, layers=1)", "data": "synthetic_ratings(count=80)", "parallel": "one_device()",
    "dtype": "float32", "batch_size": 8, "max_length": 64, "max_new_tokens": 8, "validation_prompts": 8,
    "test_prompts": 8, "log_every": 1,
}  # fmt: skip
PAIRS = {"data": "synthetic_pairs(count=40)", "max_length": 120}
LOGS = {"data": "synthetic_logs(count=80)"}
WHOLE = ("tiny", "tiny_rloo", "tiny_ppo", "tiny_reward_weighted", "tiny_dpo")
# In test_relaxed_runs, test_evolution_runs and test_episode_runs.
ELSEWHERE = ("tiny_relaxed", "tiny_evolution", "tiny_game")
OTHERS = [name for name in NAMES if name.startswith("tiny") and name not in (*WHOLE, *ELSEWHERE)]


def config(name, **lines):
    c = get_config(name)
    own = SMALL | (PAIRS if "pairs" in c.data else LOGS if "logs" in c.data else {})
    c.update({**own, **lines})
    return c.lock()


@pytest.fixture(scope="session")
def done(tmp_path_factory):
    """A function from a config's name to the folder of its finished run, and what it returned."""

    @functools.cache
    def run(name):
        home = tmp_path_factory.mktemp(name) / "run"
        return home, optimize_policy.run(config=config(name), workdir=str(home))

    return run


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", WHOLE)
def test_results_follow_the_contract(done, name):
    home, results = done(name)
    assert read(home / "results.json") == results
    assert results["experiment"] == "policy" and results["finished"] is True
    told = [line for line in metrics.read(home) if "train/loss" in line]
    assert results["steps"] == told[-1]["step"] == len(told)
    assert 1 <= results["best_step"] <= results["steps"]
    assert {"tokens_per_second", "examples_per_second", "compile_seconds"} <= {*results["throughput"]}  # fmt: skip
    assert all(math.isfinite(line["train/loss"]) for line in told)
    names = {"synthetic/nats_per_token", "synthetic/bits_per_byte"}
    if get_config(name).reward != "none()":
        own = {"reward", "gold", "kl", "length", "missing_stop", "distinct_1", "distinct_2"}
        names |= own | {f"reference/{n}" for n in own} | {"gain/reward", "gain/gold"}
        assert results["metrics"]["reference/kl"]["value"] == pytest.approx(0, abs=1e-5)
        answers = (home / "samples.jsonl").read_text().splitlines()
        assert len(answers) == 8 == results["metrics"]["reward"]["n"]
        shown = json.loads(answers[0])
        assert {"prompt", "policy", "reference", "rewards", "reference_rewards", "kl"} <= {*shown}
        assert not any("</s>" in json.loads(line)["policy"] for line in answers)
    assert names <= {*results["metrics"]}
    for figure in results["metrics"].values():
        assert figure["low"] is None or figure["low"] <= figure["value"] <= figure["high"]
    last = checkpoint.about(home / "checkpoints/last")
    assert last["step"] == results["steps"] and last["config"] == read(home / "config.json")


@pytest.mark.parametrize("name", ["tiny_rloo", "tiny_ppo"])
def test_rollouts_are_watched(done, name):
    home, results = done(name)
    told = [line for line in metrics.read(home) if "rollout/reward" in line]
    assert len(told) == results["steps"]
    for line in told:  # what sampling said is what training says
        if name == "tiny_ppo":
            assert line["rollout/sampler_difference"] < 1e-4
        else:
            assert line["train/log_prob"] == pytest.approx(line["rollout/log_prob"], abs=1e-4)
        assert {"rollout/kl", "rollout/beta", "rollout/length", "train/entropy"} <= {*line}
    assert abs(told[0]["rollout/kl"]) < 1e-4 < max(abs(line["rollout/kl"]) for line in told)
    each = 4 if name == "tiny_ppo" else 1  # 2 epochs of 2 parts
    assert results["updates"] == each * results["steps"]


def test_likelihood_is_learned(done):
    home, results = done("tiny")
    told = [line["train/mle"] for line in metrics.read(home) if "train/mle" in line]
    assert told[0] == pytest.approx(np.log(259), abs=0.1)
    assert told[-1] < told[0] - 0.5
    assert results["metrics"]["synthetic/nats_per_token"]["value"] < told[0] - 0.5


def test_the_second_time_reports(done, capsys):
    home, results = done("tiny_rloo")
    assert optimize_policy.run(config=config("tiny_rloo"), workdir=str(home)) == results
    assert "This run is done" in capsys.readouterr().err
    with pytest.raises(UserError, match="loss"):
        optimize_policy.run(config=config("tiny_rloo", loss="grpo()"), workdir=str(home))


def test_a_policy_goes_on_as_another_runs_start(done):
    home, _ = done("tiny")
    chosen = config("tiny_rloo", policy=f"trained(workdir={str(home)!r})")
    parts, _, _ = assembled(chosen)
    best = checkpoint.restore(home / "checkpoints/best")["params"]
    jax.tree.map(np.testing.assert_array_equal, {k: parts.state.params[k] for k in best}, best)


CARRIED = {
    "kl": "adaptive(beta=0.1, target=0.01, horizon=30)", "loss": "mle() + 0.5 * reinforce()", "batch_size": 4,
    "baseline": "moving_average(decay=0.5)", "samples": 1, "save_every": 4, "validations": 2, "dropout": 0.1,
    "reward_shaping": "clip(low=0.0, high=0.9), normalize()",
}  # fmt: skip


def test_a_stopped_run_ends_as_the_unbroken_one(tmp_path, monkeypatch, capsys):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    lines = config("tiny_reinforce", **CARRIED)
    wanted = optimize_policy.run(config=lines, workdir=str(whole))
    found = stopped_and_gone_on(lines, broken, monkeypatch, at=2)
    assert "going on from step 3" in " ".join(capsys.readouterr().err.split())
    assert found["metrics"] == wanted["metrics"] and found["best_step"] == wanted["best_step"]
    ends = [checkpoint.restore(home / "checkpoints/last") for home in (whole, broken)]
    jax.tree.map(np.testing.assert_array_equal, *ends)
    carry, other = (checkpoint.about(h / "checkpoints/last")["carry"] for h in (whole, broken))
    assert carry == other and carry["beta"] != 0.1 and carry["average"] != 0
    assert carry["running"]["count"] == carry["seen"] > 0
    kept = lambda line: {k: v for k, v in line.items() if k != "tokens_per_second"}
    assert [kept(x) for x in metrics.read(whole)] == [kept(x) for x in metrics.read(broken)]
    for name in ("samples.jsonl", policy_evaluation.BY_STEP):
        assert (whole / name).read_text() == (broken / name).read_text()


def assembled(chosen):
    """Parts and rewards of a config, and its plan, as `policy.run` makes them."""
    plan = assembly.plan(chosen)
    loaded = assembly.prompted(plan, plan.records())
    found, reads = assembly.backbone(chosen, plan, loaded)
    reward = reward_functions.make(chosen, "reward", {}, whole=plan.words > 0)
    known = off_policy.rewards(chosen, plan.terms, loaded.train)
    if reward is not None and not chosen.samples:
        known = np.linspace(0, 1, len(loaded.train), dtype=np.float32)
    parts = assembly.assemble(chosen, plan, loaded, found, reads, "float32", known)
    return parts, plan, reward


VTRACE = {"returns": "vtrace(discount=0.99)", "rollout_epochs": 2, "minibatches": 2}
SHAPED = {"reward_shaping": "stop_or_penalty(), normalize()", "samples": 2}


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        *((name, {}) for name in OTHERS),
        ("tiny_actor_critic", VTRACE),
        ("tiny_actor_critic", SHAPED),
        ("tiny_actor_critic", {"bootstrap": True}),
    ],
)
def test_one_step_of_every_other_objective(name, lines):
    take_steps(config(name, **lines))


def test_a_critic_starts_from_a_reward_model_and_is_trained_beside_the_policy(tmp_path):
    saved(tmp_path)
    parts, known, moved = take_steps(config("tiny_ppo", critic=f"value(workdir={str(tmp_path)!r})"))
    assert np.ptp(known["old_values"][known["token_weight"] > 0]) > 0.01
    assert "critic_transformer/tokens" in parts.reference
    assert moved["critic/kernel"] > 0 and moved["critic_transformer/blocks/up/kernel"] > 0
    assert moved["transformer/blocks/up/kernel"] > 0


def take_steps(chosen):
    """Two, on a rollout's first and last batch; gives parts, the first batch, and how far each path moved."""
    parts, plan, reward = assembled(chosen)
    first = {k: np.array(x) for k, x in parts.state.params.items()}
    made = [parts.batches[0]]
    if parts.rollouts is not None:
        does = policy_evaluation.functions(chosen, parts, reward)
        bounds = parts.rollouts.bounds
        write = rollout.answering(does, parts.reads, encoder_ratio=bounds.encoder_ratio)
        prepare = rollout.prepare(does, plan.credit, bounds, write, seed=0, max_kl=9.0)
        made, carry, told = prepare(parts.state.params, plan.credit.start, parts.rollouts.item(0))
        own = chosen.samples - chosen.data_answer  # a prompt, by the policy itself
        assert told["rollout/sampler_difference"] < 1e-4 and carry["seen"] == 8 * own
    elif any("reference" in n or n == "kto_point" for n in plan.reads):
        refer = optimize_policy._referring(
            parts, optimize_policy._tools(chosen, plan, parts, {}), plan.reads
        )
        made, _, _ = refer(parts.state.params, {}, made[0])
    begun = made[0]
    state, means = parts.step(parts.state, parts.frozen, parts.layout.put_batch(begun))
    assert int(state.bad_step) == -1
    assert math.isfinite(float(means["loss"].value)) and float(means["grad_norm"].value) > 0
    # The schedule warms up: a first step moves little, and not at all where it starts at 0.
    ended = loop.unfolded(made[-1], state.params)[-1]
    state, _ = parts.step(state, parts.frozen, parts.layout.put_batch(ended))
    moved = {k: float(np.max(np.abs(np.asarray(state.params[k]) - first[k]))) for k in first}
    assert 0 < max(moved.values()) < 0.1
    return parts, begun, moved


def test_log_probs_of_policy_and_reference_are_at_the_temperature_that_is_sampled_at():
    chosen = config("tiny_rloo", temperature=0.5)
    parts, _, reward = assembled(chosen)
    prompts = parts.rollouts.item(0).prompts
    sharp = {k: 3 * x for k, x in parts.reference.items()}
    parts = parts._replace(reference=sharp)
    does = policy_evaluation.functions(chosen, parts, reward)
    drawn = does.sample(sharp, prompts, 0, 2)
    laid = packing.lay(packing.as_examples(drawn, prompts), len(prompts.ids), parts.rollouts.bounds)
    where = packing.Places.of(laid, len(prompts.ids) * 2, drawn.tokens.shape[2])
    said = drawn.log_probs.reshape(where.mask.shape) * where.mask
    for found in (does.reference(laid), does.measure(sharp, laid)):
        np.testing.assert_allclose(where.unpack(found["log_probs"]), said, atol=1e-4)
    plain = policy_evaluation.functions(config("tiny_rloo"), parts, reward).reference(laid)[
        "log_probs"
    ]
    assert np.max(np.abs(where.unpack(plain) - said)) > 0.1


def test_answers_of_several_batches_keep_their_rewards():
    chosen = config("tiny_rloo")
    parts, _, reward = assembled(chosen)
    does = policy_evaluation.functions(chosen, parts, reward)
    prompts, _ = rollout.prompts_of(parts.data.train[:19], parts.reads, chosen.max_prompt)
    words = lambda texts: np.array([len(t) for t in texts.completions], np.float32)
    rewards = {"reward": reward, "gold": words}
    found = policy_evaluation.write(chosen, does, parts.state.params, prompts, rewards, parts)
    said = packing.Texts(prompts.texts, found.texts, prompts.references, found.stopped)
    assert len({*found.texts}) > 10 and len(found.lengths) == len(found.kl) == 19
    for name, one in rewards.items():
        np.testing.assert_array_equal(found.rewards[name], one(said))


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("tiny_ppo", {"returns": "vtrace()"}, "'returns': advantages of vtrace() hold the ratio that ppo() has"),
        ("tiny_ppo", {"critic": "q()"}, "'returns': critic='q()' does not learn from 'gae"),
        ("tiny_ppo", {"loss": "ppo() + q_error()"}, "needs q, q_target, which samples and a critic of actions offer"),
        ("tiny_ppo", {"critic": "value(workdir='/nowhere')"}, "'critic': /nowhere holds no checkpoints/best"),
        ("tiny_rloo", {"reward_shaping": "clip()"}, "'reward_shaping': clip() needs low, high"),
        ("tiny_rloo", {"reward": "regexp(pattern='e')"}, "'reward': there is no 'regexp'; did you mean 'regex'"),
        ("tiny_rloo", {"reward": "learned()"}, "'reward': learned needs a reward model; name its run folder"),
        ("tiny_rloo", {"gold": "learned()"}, "'gold': learned needs a reward model"),
        ("tiny_rloo", {"reward": "none()"}, "'reward': samples are learned from by their reward"),
        ("tiny_rloo", {"samples": 0}, "'loss': needs advantage, which samples offer; set samples to 1"),
        ("tiny_off_policy", {"samples": 0, "rollout_epochs": 1}, "'data': 48 of 48 training answers have no log_prob"),
        ("tiny_relaxed", {"samples": 0, "reward": "regex(pattern='e')"}, "needs relaxed_reward, which samples"),
        ("tiny_rloo", {"samples": 1}, "at least 2 completions of a prompt, got 1; set samples to 2"),
        ("tiny_rloo", {"rollout_parts": 3}, "'rollout_parts': batch_size=8 prompts have no 3 equal parts"),
        ("tiny_rloo", {"samples": -1}, "'samples': must not be negative"),
        ("tiny_ppo", {"samples": 0}, "'rollout_epochs': is of rollouts, and samples=0 makes none; set samples to 1"),
        ("tiny", {"critic": "value()"}, "'critic': is of rollouts, and samples=0 makes none"),
        ("tiny_ppo", {"critic": "none()"}, "which samples and a critic offer; set samples"),
        ("tiny", {"samples": 2, "reward": "regex(pattern='e')"}, "'samples': no term of loss='mle()' learns from"),
        ("tiny", {"loss": "dpo()"}, "'loss': needs chosen_log_probs, chosen_reference"),
        ("tiny_dpo", {"samples": 2, "reward": "regex(pattern='e')"}, "which pairs offer; give data of pairs"),
        ("tiny_dpo", {"loss": "bradley_terry()"}, "'loss': needs chosen, rejected, which"),
        ("tiny_dpo", {"prompts": "opening(words=2)"}, "these data have prompts, so use prompts='none()'"),
        ("tiny_reward_weighted", {"weights": "none()"}, "needs reward_weight, which a reward and its weights"),
        ("tiny_reward_weighted", {"reward": "none()"}, "'loss': needs reward_weight"),
        ("tiny_rloo", {"batch_size": 64}, "'batch_size': 64 prompts of 48 there are"),
        ("tiny_rloo", {"parallel": "pmap()", "batch_size": 12}, "'batch_size': 12 is no multiple of the 8 devices"),
        ("tiny_reward_weighted", {"parallel": "pmap()", "batch_size": 12}, "'batch_size': 12 is no multiple"),
        ("tiny_rloo", {"max_new_tokens": 500}, "'max_new_tokens': are 524 together, and the policy has 512"),
        ("tiny_rloo", {"temperature": 0.0}, "'max_new_tokens': log-probabilities of samples must be the policy's own"),
        ("tiny_rloo", {"temperature": -1.0}, "temperature must be positive"),
        ("tiny_rloo", {"prompts": "opening(words=0)"}, "'prompts': words must be at least 1"),
        ("tiny_rloo", {"prompts": "opening(words=40)"}, "'prompts': no text has more than 40 words"),
        ("tiny_rloo", {"validation_prompts": 0}, "'validation_prompts': must be at least 1"),
        ("tiny_rloo", {"minibatches": 0}, "'minibatches': must be at least 1"),
        ("tiny_rloo", {"policy": "gpt(vocabulary=100)"}, "'policy': gpt(): a vocabulary needs 259 tokens or more"),
        ("tiny_rloo", {"policy": "tiny_encoder()"}, "'policy': there is no 'tiny_encoder'"),
        ("tiny_rloo", {"policy": "pretrained(source='minilm')"}, "is an encoder; a policy is a causal decoder"),
        ("tiny_rloo", {"policy": "trained(workdir='/nowhere')"}, "/nowhere holds no checkpoints/best"),
        ("tiny_rloo", {"kl": "adaptive(horizon=3)"}, "episodes must be in (0, 5 horizon = 15), got 16"),
        ("tiny_rloo", {"max_length": 9999}, "'max_length': 9999 is outside 8..512"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_their_key(tmp_path, name, lines, message):
    with pytest.raises(UserError) as error:
        optimize_policy.run(config=config(name, **lines), workdir=str(tmp_path / "run"))
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()  # the mended command may have the same folder


def test_a_language_models_run_is_no_reward_model(done):
    home, _ = done("tiny")
    with pytest.raises(UserError, match="is a language model's run, not a reward model's"):
        scoring.load(home)


def test_an_exported_policy_reads_prompts_as_its_run_does(done, tmp_path):
    home, _ = done("tiny_rloo")
    export.run(workdir=str(home), output=str(tmp_path / "exported"))
    prompts, read = ["a fine", "no"], []
    for source in (home, tmp_path / "exported"):
        reader = Reader(backbones.policy_of(str(source)).tokenizer, None, 99, share=True)
        read.append(language.prompts(prompts, Reads(reader, (2,)), 99).ids)
    plain = tokenizers.Tokenizer.from_file(str(tmp_path / "exported/tokenizer.json"))
    for prompt, own, others in zip(prompts, *read, strict=True):
        assert own.tolist() == others.tolist() == plain.encode(prompt).ids
