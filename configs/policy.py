"""Train a language model, by likelihood or against a reward.

    python -m experiments.optimize_policy --config=configs/policy.py:gpt --workdir=runs/gpt

gpt:       a small GPT from scratch on the texts of the four human-rated corpora.
sentiment: that GPT (runs/gpt) against a reward model of half of the documents (runs/proxy), watched by one of the other
           half (runs/gold); prompts are the opening words of documents. Its objective is rloo; others by name:
           sentiment_mixed, _reward_weighted, _linear_weighted, _filtered, _ppo, _grpo, ...
sums_start, sums: additions, 600 learned from their answers, and then 3,000 others from the reward of a right answer.
game: a game of two turns from scratch; no data, the environment says what is read and what is earned.
sentiment_evolution has no loss: 16 adapters around one answer each prompt, and it moves as they fared.
tiny_logged: learns from answers that another policy wrote, by their rewards and log-probabilities; of your own logs:
           --config.data="file(path='logs.jsonl')", lines as experiments.generate --logs writes them
sentiment_relaxed: through a reward model of the policy's own vocabulary, configs/reward.py:ratings_gpt in
           runs/ratings_gpt; tiny_relaxed: runs/tiny_bytes, any --config.model="tiny_decoder()"
tiny, and tiny_OBJECTIVE: a smaller model over bytes, on made-up texts; a minute, mostly compiling. tiny_t5_mle,
           tiny_t5_rloo: an encoder–decoder, whose encoder reads the prompt and whose decoder answers.
           tiny_evolution goes on from tiny (runs/tiny, which with --config.epochs=20 has learned to spell).
Change any line from the shell: --config.loss="mle() + 0.5 * reinforce()"
"""

import ml_collections

# The objectives, each a few lines of a config. `samples` 0 learns from the data's own answers.
OBJECTIVES = {
    "reward_weighted": {
        "loss": "reward_weighted()",
        "weights": "exp_weights(beta=0.3, baseline=0.0)",
    },
    "linear_weighted": {"loss": "linear_weighted(coef=1.0)"},
    "mixed": {"loss": "mle() + 0.2 * reinforce()", "samples": 2},
    "off_policy": {
        "loss": "mle() + 0.2 * off_policy()",
        "samples": 2,
        "rollout_epochs": 2,
    },
    # Sharpness alpha = 0.005 scales its gradient too: 40 is the lambda of 0.2 that `mixed` has.
    "minimum_risk": {
        "loss": "mle() + 40.0 * minimum_risk()",
        "samples": 4,
        "data_answer": True,
    },
    "filtered": {"loss": "reward_weighted()", "weights": "keep_best()", "samples": 4},
    "boltzmann": {
        "loss": "reward_weighted()",
        "weights": "boltzmann_weights(temperature=0.3)",
        "samples": 4,
    },
    # Of its own samples a policy learns what is improbable by this: README's table has the figures.
    "raml": {
        "loss": "reward_weighted()",
        "weights": "raml_weights(temperature=0.3)",
        "samples": 4,
    },
    "reinforce": {"loss": "reinforce()", "baseline": "moving_average()", "samples": 1},
    "rloo": {"loss": "reinforce()", "baseline": "leave_one_out()", "samples": 2},
    "grpo": {"loss": "grpo()", "baseline": "group_normalized()", "samples": 4, "kl": "none()"},
    "dr_grpo": {
        "loss": "dr_grpo(max_length=32)",
        "baseline": "group_centered()",
        "samples": 4,
    },
    "actor_critic": {
        "loss": "policy_gradient() + 0.5 * squared_value() + 0.001 * negative_entropy()",
        "baseline": "none()",
        "critic": "value()",
        "samples": 1,
    },
    "q_values": {
        "loss": "policy_gradient() + 0.5 * q_error() + 0.001 * negative_entropy()",
        "baseline": "none()",
        "critic": "q()",
        "returns": "expected_sarsa(discount=1.0)",
        "whiten": False,  # a critic that knows nothing yet is small, and its advantages should be
        "samples": 2,
    },
    "ppo": {
        "loss": "ppo(clip=0.2) + 0.1 * clipped_value(clip=0.2)",
        "baseline": "none()",
        "critic": "value()",
        "samples": 2,
        "rollout_epochs": 2,
        "minibatches": 2,
    },
    # A population of adapters around one that moves as they fared; of 16 answers to a prompt each is by another.
    "evolution": {
        "loss": "none()",
        "evolution": "open_es(deviation=0.02)",
        "adapter": "lora(rank=4)",
        "samples": 16,
        "baseline": "none()",
    },
}
PREFERENCES = {
    "dpo": "dpo(beta=0.1)",
    "ipo": "ipo(beta=0.1)",
    "hinge_norm": "hinge_norm()",
    "slic": "slic() + 0.1 * mle()",
    "orpo": "mle() + 0.1 * orpo()",
    "simpo": "simpo()",
    "cpo": "cpo()",
    "kto": "kto()",
}
SENTIMENT = {
    "policy": "trained(workdir='runs/gpt')",
    "prompts": "opening(words=4)",
    "reward": "learned()",
    "reward_model": "runs/proxy",
    "gold": "learned()",
    "gold_model": "runs/gold",
    "kl": "fixed(beta=0.1)",
    "max_length": 128,
    "max_prompt": 24,
    "max_new_tokens": 32,
    "batch_size": 64,
    "schedule": "linear(peak=3e-4)",
    "epochs": 0.2,
    "validations": 8,  # so many points it takes to see proxy and gold part
    "validation_prompts": 128,
}
TINY = {
    "policy": "tiny_decoder()",
    "data": "synthetic_ratings(count=200)",
    "max_length": 96,
    "batch_size": 16,
    "schedule": "linear(peak=5e-3)",
}
TINY_REWARD = {
    **TINY,
    "prompts": "opening(words=2)",
    "reward": "regex(pattern='e')",
    "gold": "length(target=3)",
    "kl": "fixed(beta=0.05)",
    "max_prompt": 24,
    "max_new_tokens": 16,
    "validation_prompts": 16,
    "test_prompts": 20,
    "validations": 1,
    "epochs": 0.5,
}
TINY_PAIRS = {**TINY, "data": "synthetic_pairs(count=80)", "validations": 1}
RELAXED = {
    "loss": "mle() + 0.2 * relaxed()",
    "samples": 1,
    "baseline": "none()",
    "reward": "learned()",
}
# Importance sampling; the rewards are the data's own, or those of a reward line, which goes first.
LOGGED = {"loss": "mle() + 1.0 * off_policy()", "baseline": "batch_mean()"}
TINY_T5 = {"policy": "tiny_encoder_decoder()", "prompts": "opening(words=2)"}
SUMS = {"policy": "tiny_decoder(width=128, layers=3)", "data": "sums(count=5000)", "max_length": 16}
GAME = {
    "data": "none()",
    "policy": "tiny_decoder(width=64, layers=2)",
    "environment": "open_box(letters=4)",
    # Of tokens: each turn is credited with the rewards from it on. Without entropy the second turn, which earns nothing
    # before the first is right, is no longer explored by then.
    "loss": "policy_gradient() + 0.01 * negative_entropy()",
    "baseline": "leave_one_out()",
    "samples": 8,
    "max_prompt": 8,
    "max_new_tokens": 1,  # an action is a letter
    "max_length": 24,
    "batch_size": 64,
    "schedule": "constant(peak=3e-3)",
    "epochs": 3.0,
    "dtype": "float32",
}
NAMES = {
    "gpt": {
        "policy": "gpt(vocabulary=4096, width=256, layers=4)",
        "schedule": "cosine(peak=2e-3, end=1e-4)",
        "max_length": 128,
        "batch_size": 64,
        "epochs": 2.0,
        "weight_decay": 0.1,
        "validations": 2,
    },
    "sentiment": {**SENTIMENT, **OBJECTIVES["rloo"]},
    **{f"sentiment_{name}": {**SENTIMENT, **own} for name, own in OBJECTIVES.items()},
    "sentiment_reward_weighted": {**SENTIMENT, **OBJECTIVES["reward_weighted"], "epochs": 0.5},
    "sentiment_relaxed": {**SENTIMENT, **RELAXED, "reward_model": "runs/ratings_gpt"},
    "sentiment_evolution": {
        **SENTIMENT,
        **OBJECTIVES["evolution"],
        "batch_size": 32,
        "schedule": "linear(peak=1e-2)",
    },
    # 600 sums with their answers, none of which `sums` is evaluated on; it has 3,000 others without.
    "sums_start": {
        **SUMS,
        "data": "sums(count=1000)",
        "schedule": "linear(peak=2e-3)",
        "batch_size": 64,
        "epochs": 60.0,
    },
    "sums": {
        **SUMS,
        **OBJECTIVES["rloo"],
        "policy": "trained(workdir='runs/sums_start')",
        "reward": "exact_answer()",
        "samples": 8,
        "max_prompt": 8,
        "max_new_tokens": 5,
        "batch_size": 64,
        "schedule": "linear(peak=5e-4)",
        "epochs": 6.0,
    },
    "game": GAME,
    "tiny": {**TINY, "epochs": 2.0},
    "tiny_game": {
        **GAME,
        "policy": "tiny_decoder(width=16, layers=1)",
        "environment": "open_box(letters=2)",
        "batch_size": 8,
        "samples": 2,
        "train_seeds": 32,
        "epochs": 1.0,
        "validations": 1,
        "validation_prompts": 16,
        "test_prompts": 20,
    },
    **{f"tiny_{name}": {**TINY_REWARD, **own} for name, own in OBJECTIVES.items()},
    # Its reward model must have the policy's vocabulary; tiny ones have that of bytes.
    "tiny_relaxed": {
        **TINY_REWARD,
        **RELAXED,
        "data": "synthetic_logs(count=200)",
        "prompts": "none()",
        "reward_model": "runs/tiny_bytes",
    },
    "tiny_logged": {**TINY, **LOGGED, "data": "synthetic_logs(count=300)", "validations": 1},
    "tiny_evolution": {
        **TINY_REWARD,
        **OBJECTIVES["evolution"],
        "policy": "trained(workdir='runs/tiny')",
        "evolution": "open_es(deviation=0.1)",
        "schedule": "constant(peak=0.1)",
        "epochs": 4.0,
    },
    **{f"tiny_{name}": {**TINY_PAIRS, "loss": loss} for name, loss in PREFERENCES.items()},
    "tiny_t5_mle": {**TINY, **TINY_T5, "epochs": 2.0},
    "tiny_t5_rloo": {**TINY_REWARD, **TINY_T5, **OBJECTIVES["rloo"]},
}


def get_config(name: str = "gpt") -> ml_collections.ConfigDict:
    """The config of that name.

    Raises: ValueError on another name.
    """
    if name not in NAMES:
        raise ValueError(f"configs/policy.py has {sorted(NAMES)}, not {name!r}")
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.data = (
        "human_ratings()"  # human_ratings, file, tfds, sums, synthetic_ratings, synthetic_pairs
    )
    c.environment = "none()"  # open_box, gym(id=): episodes to play, in place of data and reward
    c.train_seeds = 10_000  # of an environment; those of validation_prompts and test_prompts follow
    c.prompts = "none()"  # those of the data; or opening(words=4): the opening words of texts that have no prompt
    c.max_length = 256  # tokens of a prompt with its answer; of each where an encoder reads prompts
    c.special_tokens = ""  # that a text spells: parse (special, as transformers has them), text, or as the model says
    c.batch_size = 32  # texts (pairs, prompts) of a step, over all devices
    c.epochs = 1.0
    c.policy = (
        "gpt()"  # gpt, pretrained(source=), trained(workdir=), tiny_decoder, tiny_encoder_decoder
    )
    c.adapter = "none()"  # or "lora(rank=16, alpha=32.0)"
    # What states are worth: none, value, q (of every next token; returns="expected_sarsa(discount=1.0)"), linear in the
    # policy's hidden states; or value(workdir='runs/rm'): a transformer of its own, that of a reward model over the
    # policy's tokenizer, trained in the same step.
    c.critic = "none()"
    c.dropout = 0.0
    c.dtype = "auto"  # of products: float32, bfloat16, or the faster here
    c.remat = False  # recompute blocks in the backward pass: less memory, a third slower
    c.samples = 0  # answers sampled to each prompt; 0: learn from the data's own
    c.data_answer = False  # the last of a prompt's samples is the data's own answer to it
    c.rollout_parts = 1  # of its prompts; a part is rewarded while the next one is sampled
    c.evolution = "none()"  # open_es(deviation=0.02): no loss, but a population of as many adapters as samples
    c.max_prompt, c.max_new_tokens = 32, 32  # tokens; longer prompts lose their front
    c.temperature = 1.0  # that answers are sampled at; it divides logits in training too
    c.relaxation = 1.0  # temperature of the softmax that relaxed() goes back through
    c.reward = "none()"  # a sum of rewards, such as "learned()"
    c.reward_model = ""  # the run folder or Hugging Face folder that it asks
    c.reward_output = (
        ""  # which of a stored model's several outputs is the reward; gold_output: the same of gold
    )
    # What becomes of rollouts' rewards before they are learned from, in this order, such as
    # "stop_or_penalty(penalty=-1.0), clip(low=-5.0, high=5.0), normalize()", or length_penalty(coef=). Figures of
    # validation and evaluation are of the reward as it is.
    c.reward_shaping = "none()"
    c.gold, c.gold_model, c.gold_output = "none()", "", ""  # another one that is only watched
    # fixed(beta=0.05), adaptive(target=6.0): what a nat from the first policy costs a sample of the reward that is
    # learned from (not by relaxed()), and a state of the policy where the best is chosen.
    c.kl = "none()"
    c.max_kl = 100.0  # nats a text from the first policy, beyond which the run stops
    c.baseline = (
        "leave_one_out()"  # none, batch_mean, group_normalized, group_centered, moving_average
    )
    # Of tokens, with a critic: gae, lambda_returns, n_step(steps=), vtrace (made anew each epoch), expected_sarsa
    c.returns = "gae(discount=1.0, decay=0.95)"
    c.bootstrap = False  # what is cut by length is worth what critic="value()" says of its end, in place of its reward
    c.whiten = True  # advantages of tokens, with a critic
    # exp_weights(beta=), boltzmann_weights(temperature=), raml_weights(temperature=), keep_best, keep_above(quantile=)
    c.weights = "none()"
    c.rollout_epochs, c.minibatches = (
        1,
        1,
    )  # how often a rollout is learned from, and in how many parts
    c.validation_prompts, c.test_prompts = (
        256,
        1000,
    )  # at most so many, answered at validation and at the end
    c.loss = "mle()"  # a sum of terms
    c.optimizer = "adamw(eps=1e-5)"
    c.schedule = "linear(peak=1e-4, warmup=0.06)"
    c.clip_norm = 1.0  # 0: none
    c.weight_decay = 0.0
    c.rates = ""  # factors on the learning rate by path, such as '{"^transformer/": 0.3}'
    c.frozen = ""  # regular expression of parameter paths that stay as they are
    c.parallel = "auto()"  # auto, one_device, pmap, mesh(data=, fsdp=, tensor=)
    c.microbatches = 1
    # How often in the run. The best is kept: by log-probability of the texts; with a reward by that less what
    # KL penalty by kl="fixed()". adaptive() penalizes nats beyond its target, at its first coefficient, so that one
    # measure holds all along.
    c.validations = 4
    c.log_every, c.save_every = 10, 200  # steps
    c.update(NAMES[name])
    return c
