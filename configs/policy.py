"""Train a language model, by likelihood or against a reward.

    python -m experiments.optimize_policy --config=configs/policy.py:gpt --workdir=runs/gpt

gpt:     a small GPT from scratch on the texts of the four human-rated corpora.
tiny:    a smaller one over bytes, on made-up texts; seconds.
Change any line from the shell: --config.loss="mle() + 0.5 * reinforce()"
"""

import ml_collections

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
    "reward": "keywords(words=['e'])",
    "gold": "length(target=3)",
    "kl": "fixed(beta=0.05)",
    "max_prompt": 24,
    "max_new_tokens": 16,
    "validation_prompts": 16,
    "test_prompts": 20,
}
NAMES = {
    "gpt": {
        "policy": "gpt(vocabulary=4096, width=256, layers=4)",
        "schedule": "cosine(peak=1e-3, end=1e-4)",
        "max_length": 128,
        "batch_size": 64,
        "epochs": 5.0,
        "dropout": 0.1,
        "weight_decay": 0.1,
    },
    "tiny": {**TINY, "epochs": 2.0},
    "tiny_rloo": {**TINY_REWARD, "loss": "reinforce()", "samples": 4},
}


def get_config(name: str = "gpt") -> ml_collections.ConfigDict:
    """The config of that name.

    Raises: ValueError on another name.
    """
    if name not in NAMES:
        raise ValueError(f"configs/policy.py has {sorted(NAMES)}, not {name!r}")
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.data = "human_ratings()"  # human_ratings, file, tfds, synthetic_ratings
    c.prompts = "given()"  # or opening(words=4): the opening words of texts that have no prompt
    c.max_length = 256  # tokens of a prompt with its answer
    c.batch_size = 32  # texts (pairs, prompts) of a step, over all devices
    c.epochs = 1.0
    c.policy = "gpt()"  # gpt, pretrained(source=), trained(workdir=), tiny_decoder
    c.adapter = "none()"  # or "lora(rank=16, alpha=32.0)"
    c.critic = False  # values beside the logits, by a linear layer
    c.dropout = 0.0
    c.dtype = "auto"  # of products: float32, bfloat16, or the faster here
    c.remat = False  # recompute blocks in the backward pass: less memory, a third slower
    c.samples = 0  # answers sampled to each prompt; 0: learn from the data's own
    c.max_prompt, c.max_new_tokens = 32, 32  # tokens; longer prompts lose their front
    c.reward, c.reward_model = (
        "",
        "",
    )  # a sum of rewards, such as "learned()"; the run folder that it asks
    c.gold, c.gold_model = "", ""  # another one that is only watched
    c.kl = (
        "free()"  # fixed(beta=0.05), adaptive(target=6.0): what a nat from the first policy costs
    )
    c.baseline = "leave_one_out()"  # no_baseline, batch_mean, group_normalized, group_centered, moving_average
    c.returns = "gae(discount=1.0, decay=0.95)"  # of tokens, with a critic
    c.whiten = True  # advantages of tokens, with a critic
    c.weights = "evenly()"  # exp_weights(beta=), boltzmann_weights(temperature=), keep_best, keep_above(quantile=)
    c.rollout_epochs, c.minibatches = (
        1,
        1,
    )  # how often a rollout is learned from, and in how many parts
    c.validation_prompts, c.test_prompts = (
        256,
        1000,
    )  # at most so many, answered at validation and at the end
    c.temperature = 1.0  # that answers are sampled at; it divides logits in training too
    c.loss = "mle()"  # a sum of terms
    c.optimizer = "adamw(eps=1e-5)"
    c.schedule = "linear(peak=1e-4, warmup=0.06)"
    c.clip_norm = 1.0  # 0: none
    c.weight_decay = 0.0
    c.rates = ""  # factors on the learning rate by path, such as '{"^transformer/": 0.3}'
    c.frozen = ""  # regular expression of parameter paths that stay as they are
    c.parallel = "auto()"  # auto, one_device, pmap, mesh(data=, fsdp=, tensor=)
    c.microbatches = 1
    c.validations = 4  # how often in the run; the best by validation is kept
    c.log_every, c.save_every = 10, 200  # steps
    c.update(NAMES[name])
    return c
