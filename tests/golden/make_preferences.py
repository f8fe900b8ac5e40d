"""Makes tests/golden/preferences.json: the DPO family's losses and gradients by TRL's own trainers, in float64.

By hand: pip install -r requirements-reference.txt, then python tests/golden/make_preferences.py

A trainer made without its __init__ computes its loss of a "model" that answers with given log-probabilities. Each pair
or text is a batch of its own, so that its value stands alone; only KTO's reference point is that of all texts.
"""

import collections
import json
import types
from pathlib import Path

import numpy as np
import torch
import trl
from trl import DPOTrainer, KTOTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

RNG = np.random.default_rng(0)
PROMPT, LONGEST, PAIRS, BETA = 3, 9, 6, 0.3
LENGTHS = RNG.integers(1, LONGEST + 1, (2, PAIRS))  # of the chosen and the rejected answers
MASK = np.arange(LONGEST) < LENGTHS[..., None]
SCALE = np.array([0.02, 0.3, 1.0, 2.0, 4.0, 8.0])[:, None]  # from near certainty to far apart


def drawn():
    """Log-probabilities of tokens [2, PAIRS, LONGEST], such that float32 adds them up exactly; 0 on padding."""
    nats = np.maximum(np.round(RNG.exponential(SCALE, MASK.shape) * 1024), 1) / 1024
    return np.where(MASK, -nats, 0.0)


POLICY, REFERENCE = drawn(), drawn()
MISMATCHED, MISMATCHED_REFERENCE = -RNG.integers(200, 900, (2, 2 * PAIRS)) / 32


def model(log_probs):
    """What a trainer calls, and what its loss reads: log_probs [N, T - 1]; the rest is only logged."""
    zeros = torch.zeros_like(log_probs)
    answer = types.SimpleNamespace(
        log_probs=log_probs, entropy=zeros, mean_logits=zeros, is_top1=zeros > 0
    )
    return lambda **inputs: answer


def trainer(kind, **attributes):
    made = kind.__new__(kind)
    same = lambda x: x
    made.accelerator = types.SimpleNamespace(
        device=torch.device("cpu"), gather=same, gather_for_metrics=same
    )
    made._metrics = collections.defaultdict(lambda: collections.defaultdict(list))
    made.model = torch.nn.Identity().eval()
    made.model.is_gradient_checkpointing = False
    made.args = types.SimpleNamespace(
        gradient_checkpointing_kwargs=None, gradient_checkpointing=False
    )
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def behind_prompt(answers, mask):
    """Tokens [N, PROMPT + T] that stand for nothing, their completion mask, and log-probabilities one shorter."""
    ahead = torch.zeros(len(mask), PROMPT, dtype=torch.long)
    completion = torch.cat([ahead, torch.as_tensor(mask).long()], dim=1)
    log_probs = torch.cat([ahead[:, 1:].double(), torch.as_tensor(answers)], dim=1)
    return torch.zeros_like(completion), completion, log_probs


def dpo(loss_type, label_smoothing=0.0):
    """TRL's value of each pair, and its gradient in the summed log-probability of either answer."""
    found = {"value": [], "chosen_gradient": [], "rejected_gradient": []}
    for i in range(PAIRS):
        tokens, mask, policy = behind_prompt(POLICY[:, i], MASK[:, i])
        policy.requires_grad_()
        made = trainer(
            DPOTrainer, beta=BETA, label_smoothing=label_smoothing, loss_types=[loss_type], loss_weights=[1.0],
            f_divergence_type="reverse_kl", ld_alpha=None, precompute_ref_logps=False, aux_loss_enabled=False,
            use_weighting=False, ref_model=model(behind_prompt(REFERENCE[:, i], MASK[:, i])[2]),
            _total_train_tokens=0,
        )  # fmt: skip
        inputs = {"input_ids": tokens, "completion_mask": mask, "attention_mask": mask}
        value = made._compute_loss(model(policy), inputs, return_outputs=False)
        keep(found, value, torch.autograd.grad(value, policy)[0][:, PROMPT - 1])
    return found


def keep(found, value, gradient):
    found["value"].append(float(value.detach()))
    for side, slope in zip(("chosen", "rejected"), gradient, strict=True):
        found[f"{side}_gradient"].append(float(slope))


def without_reference(compute, *, per_token):
    """compute(chosen, rejected [1]) -> TRL's losses [1], of summed log-probabilities or of means over tokens."""
    found = {"value": [], "chosen_gradient": [], "rejected_gradient": []}
    for sums, lengths in zip(POLICY.sum(2).T, LENGTHS.T, strict=True):
        whole = torch.tensor(sums, requires_grad=True)
        sides = whole / torch.tensor(lengths) if per_token else whole
        value = compute(sides[:1], sides[1:]).sum()
        keep(found, value, torch.autograd.grad(value, whole)[0])
    return found


def cpo(loss_type, beta, gamma=0.0):
    made = trainer(
        CPOTrainer, loss_type=loss_type, beta=beta, simpo_gamma=gamma, alpha=0.0, label_smoothing=0.0
    )  # fmt: skip
    return lambda chosen, rejected: made.cpo_loss(chosen, rejected)[0]


def orpo(chosen, rejected):
    # TRL subtracts this one from the likelihood's loss. It goes by float32, where ours does.
    return -trainer(ORPOTrainer, beta=1.0).odds_ratio_loss(chosen, rejected)[0]


def kto():
    """Of each text, the chosen ones desirable; the reference point is that of all mismatched texts."""
    found = {"value": [], "gradient": [], "point": None}
    texts = (x.reshape(-1, LONGEST) for x in (POLICY, REFERENCE, MASK))
    for i, (now, before, mask) in enumerate(zip(*texts, strict=True)):
        tokens, completion, policy = behind_prompt(now[None], mask[None])
        policy.requires_grad_()
        made = trainer(
            KTOTrainer, beta=BETA, loss_type="kto", desirable_weight=1.2, undesirable_weight=0.8, calculate_KL=True,
            precompute_ref_logps=False, aux_loss_enabled=False, _total_train_tokens=0,
        )  # fmt: skip
        point = [torch.as_tensor(x)[:, None] for x in (MISMATCHED, MISMATCHED_REFERENCE)]
        other = torch.zeros(2 * PAIRS, 2, dtype=torch.long)

        def either(own, far):
            # Both kinds of text go through one model; those of the point have no gradient.
            return lambda **given: model(own if len(given["input_ids"]) == 1 else far)()

        made.ref_model = either(behind_prompt(before[None], mask[None])[2], point[1])
        inputs = {
            "input_ids": tokens, "completion_mask": completion, "attention_mask": completion,
            "KL_input_ids": other, "KL_completion_mask": other, "KL_attention_mask": other,
            "label": torch.tensor([i < PAIRS]),
        }  # fmt: skip
        value = made._compute_loss(either(policy, point[0]), inputs, return_outputs=False)
        found["value"].append(float(value.detach()))
        found["gradient"].append(float(torch.autograd.grad(value, policy)[0][0, PROMPT - 1]))
        found["point"] = made._metrics["eval"]["kl"][-1]
    return found


stored = {
    "versions": f"trl {trl.__version__}, torch {torch.__version__}",
    "beta": BETA,
    "lengths": LENGTHS.tolist(),
    "policy": POLICY.sum(2).tolist(),
    "reference": REFERENCE.sum(2).tolist(),
    "mismatched": MISMATCHED.tolist(),
    "mismatched_reference": MISMATCHED_REFERENCE.tolist(),
    "losses": {
        "sigmoid": dpo("sigmoid"),
        "smoothed": dpo("aot_unpaired", 0.2),  # of one pair: its sigmoid with label smoothing
        "robust": dpo("robust", 0.2),
        "ipo": dpo("ipo"),
        "hinge": dpo("hinge"),
        "sft": dpo("sft"),
        "cpo": without_reference(cpo("sigmoid", BETA), per_token=False),
        "cpo_hinge": without_reference(cpo("hinge", 1.0), per_token=False),
        "simpo": without_reference(cpo("simpo", 2.5, 1.375), per_token=True),
        "orpo": without_reference(orpo, per_token=True),
        "kto": kto(),
    },
}
path = Path(__file__).with_name("preferences.json")
path.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
