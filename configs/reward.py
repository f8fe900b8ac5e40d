"""Train a reward model on rated texts or preference pairs.

    python -m experiments.train_reward --config=configs/reward.py:ratings --workdir=runs/ratings

ratings: MiniLM on the training texts of all four human-rated domains (`make quickstart`).
movie:   MiniLM on the movie snippets alone.
ratings_gpt: the transformer of a trained policy (runs/gpt of configs/policy.py), so of its vocabulary.
ratings_mpnet: MPNet (395 MB) on the human ratings, by a distribution over ratings; agrees with people better than one
         person in all four domains: held-out movie r .915 and .917 of two seeds, n = 1,023; 2 cores, 16 to 19 minutes.
ratings_smollm2: SmolLM2 on the human ratings, by a distribution over ratings; 2 cores for 20 to 40 minutes:
         held-out movie r .882 [.863, .899], n = 1,023.
hh_minilm, hh, hh_lora: MiniLM, SmolLM2, and an adapter on SmolLM2, on your copy of the HH preference transcripts:
         --config.data="file(path='harmless-base.jsonl.gz', domain='hh')"
chinese: a small encoder over bytes, from scratch, on classes of Chinese texts:
         --config.data="file(path='train.json', classes='Negative,Positive', domain='reviews')"
tiny, tiny_pairs: small models on made-up texts; a minute, mostly compiling.
Change any line from the shell: --config.loss="hinge(margin=1.0)" --config.group_size=4
"""

import ml_collections

# Embeddings are half of MiniLM's parameters: kept as they are, they need no gradient and no optimizer state.
MINILM = {
    "model": "pretrained(source='minilm')",
    "dropout": 0.1,
    "frozen": "^transformer/(tokens|positions|types)$",
}
HH = {
    "data": "file(path='harmless-base.jsonl.gz', domain='hh')",
    "loss": "bradley_terry()",
    "max_length": 512,
    "batch_size": 8,
    "epochs": 1.0,
}
SMOLLM2 = {"model": "pretrained(source='smollm2')", "schedule": "linear(peak=2e-5)"}
NAMES = {
    "ratings": {**MINILM, "data": "human_ratings()", "max_length": 112, "epochs": 2.0},
    "movie": {**MINILM, "data": "human_ratings(domains='movie')", "max_length": 112},
    "ratings_gpt": {
        "model": "trained(workdir='runs/gpt')",
        "data": "human_ratings()",
        "max_length": 128,
        "schedule": "linear(peak=3e-4)",
        "epochs": 2.0,
    },
    "ratings_smollm2": {
        **SMOLLM2,
        "data": "human_ratings()",
        "max_length": 128,
        "head": "classes()",
        "loss": "votes()",
        "schedule": "linear(peak=5e-5)",
        "epochs": 2.0,
    },
    "ratings_mpnet": {
        **MINILM,
        "model": "pretrained(source='mpnet')",
        "data": "human_ratings()",
        "max_length": 128,
        "head": "classes()",
        "loss": "votes()",
        "schedule": "linear(peak=4e-5)",
        "epochs": 2.0,
    },
    "hh_minilm": {**HH, **MINILM, "epochs": 2.0},
    "hh": {**HH, **SMOLLM2},
    "hh_lora": {
        **HH,
        **SMOLLM2,
        "microbatches": 2,  # half the memory
        "adapter": "lora(rank=16, alpha=32.0)",
        "schedule": "linear(peak=2e-4)",
    },
    "chinese": {
        "model": "tiny_encoder(width=128, layers=4)",
        "data": "file(path='train.json', classes='Negative,Positive', domain='reviews')",
        "head": "classes()",
        "loss": "cross_entropy()",
        "max_length": 512,
        "schedule": "linear(peak=1e-3)",
        "epochs": 20.0,
    },
    "tiny_pairs": {
        "model": "tiny_decoder()",
        "data": "synthetic_ratings()",
        "loss": "plackett_luce()",
        "group_size": 4,
        "max_length": 128,
        "batch_size": 8,
        "schedule": "linear(peak=5e-3)",
    },
    "tiny": {
        "model": "tiny_encoder()",
        "data": "synthetic_ratings()",
        "max_length": 128,
        "batch_size": 16,
        "schedule": "linear(peak=5e-3)",
        "epochs": 8.0,
    },
}


def get_config(name: str = "ratings") -> ml_collections.ConfigDict:
    """The config of that name.

    Raises: ValueError on another name.
    """
    if name not in NAMES:
        raise ValueError(f"configs/reward.py has {sorted(NAMES)}, not {name!r}")
    c = ml_collections.ConfigDict()
    c.seed, c.seeds = 0, 1  # the first seed, and how many (stacked in one program)
    c.data = "human_ratings()"  # human_ratings, file, synthetic_ratings
    c.fold = (
        ""  # "0/5": evaluate on the first of five parts of all documents; cross_validate sets it
    )
    c.max_length = 256  # tokens of one text
    c.special_tokens = ""  # that a text spells: parse (special, as transformers has them), text, or as the model says
    c.group_size = 1  # texts of one domain drawn together; every unordered pair of unequal ratings in it counts
    c.pair_arrays = (
        ""  # of "margins", "target", "tie": what pairs offer to the loss beyond their order
    )
    c.batch_size = 32  # groups (single texts, if group_size is 1; given pairs), over all devices
    c.epochs = 3.0
    c.model = (
        "pretrained(source='minilm')"  # pretrained, trained(workdir=), tiny_encoder, tiny_decoder
    )
    c.head = "scalar()"  # scalar, classes, ordinal, gaussian, attributes
    c.adapter = "none()"  # or "lora(rank=16, alpha=32.0)": thin kernels beside frozen ones
    c.dropout = 0.0
    c.dtype = "auto"  # of products: float32, bfloat16, or the faster here
    c.remat = False  # recompute blocks in the backward pass: less memory, a third slower
    c.loss = "mse()"  # a sum of terms, such as "mse() + 0.1 * huber(delta=1.0)"
    c.normalize = "none()"  # or shift(), standardize(reference="validation"): scores' level and scale, after training
    c.optimizer = "adamw(eps=1e-5)"
    c.schedule = "linear(peak=2e-4, warmup=0.06)"
    c.clip_norm = 1.0  # 0: none
    c.weight_decay = 0.01
    c.rates = ""  # factors on the learning rate by path, such as '{"^transformer/": 0.3}'
    c.frozen = ""  # regular expression of parameter paths that stay as they are
    c.parallel = "auto()"  # auto, one_device, pmap, mesh(data=, fsdp=, tensor=)
    c.microbatches = 1
    c.validations = 4  # how often in the run; the best by validation is kept
    c.log_every, c.save_every = 10, 200  # steps
    c.update(NAMES[name])
    return c
