"""Episodes as texts: what is said is predicted and paid for, what is heard is only read, and seeds decide the rest."""

import numpy as np
import pytest

from configs.policy import get_config
from rmjax.assembly import policy as assembly
from rmjax.data import language
from rmjax.data.encode import Reader
from rmjax.data.language import Reads
from rmjax.data.tokenizer import Tokenizer
from rmjax.environments.protocol import Environment, Turn
from rmjax.errors import UserError
from rmjax.rl import advantages, episodes, packing, rollout
from rmjax.sampling.generate import Samples

BYTES = Tokenizer.bytes()
READS = Reads(Reader(BYTES, None, 40, True), (2,))
K, NEW = 2, 3


def ids(text):
    return BYTES.encode([text], 999)[0][1:-1].tolist()


def step(state, action):
    """Game `seed` is done after seed + 1 turns; each turn pays its number, and more for a long action."""
    seed, turn = state
    return Turn((seed, turn + 1), f"heard {turn}", turn + 1 + 0.1 * len(action), turn == seed)


GAME = Environment("counting", 3, lambda seed: ((seed, 0), f"go {seed}"), step)
SAID = {"a": ids("a") + [2], "bc": ids("bc") + [2], "cut": ids("cut")}


def speak(asked):
    """Of each row by turns "a", "bc" and an action that is cut; `asked` gathers what was to be answered."""

    def answer(params, contexts, keys):
        words = [list(SAID)[(len(asked) + row) % 3] for row in range(len(contexts))]
        asked.append((contexts, keys, words))
        tokens, log_probs = np.zeros((2, len(words), 1, NEW))
        for i, word in enumerate(words):
            own = SAID[word]
            tokens[i, 0, : len(own)] = own
            log_probs[i, 0, : len(own)] = -0.01 * np.arange(1, len(own) + 1) - len(asked)
        lengths = np.array([[len(SAID[w])] for w in words])
        stopped = np.array([[w != "cut"] for w in words])
        return Samples(tokens.astype(np.int32), log_probs, lengths, stopped)

    return answer


def config(**lines):
    c = get_config("tiny_game")
    c.update({"max_prompt": 8, "max_new_tokens": NEW, "max_length": 40, "samples": K, **lines})
    return c


def prompts(seeds=(0, 1, 2)):
    said = [f"go {seed}" for seed in seeds]
    made = language.prompts(said, READS, 8).ids
    return packing.Prompts(made, np.array(seeds), said, [""] * len(seeds))


def played(step=5, **lines):
    asked = []
    write = episodes.playing(GAME, speak(asked), READS, config(**lines))
    return write(None, prompts(), step, K), asked


def test_a_transcript_is_what_was_said_and_heard_in_turn():
    drawn, asked = played()
    words = [w for _, _, w in asked]
    heard = [ids(f"heard {turn}") for turn in range(3)]
    closed = lambda word: SAID[word] + ([] if word != "cut" else [2])
    for i, tokens in enumerate(drawn.examples.tokens):
        seed = i // K
        want, places = prompts().ids[seed].tolist(), []
        for turn in range(seed + 1):
            np.testing.assert_array_equal(asked[turn][0][i], want)  # what the policy answered to
            places += range(len(want), len(want) + len(SAID[words[turn][i]]))
            want = [*want, *closed(words[turn][i]), *heard[turn]]
        assert tokens.tolist() == want[: places[-1] + 1]
        assert drawn.examples.targets(i).tolist() == places and drawn.lengths[i] == len(places)
        assert drawn.examples.starts[i] == places[0] == len(prompts().ids[seed])
    assert drawn.texts[2] == "> cut\nheard 0\n> a\nheard 1"
    assert drawn.stopped.all() and [len(a[0]) for a in asked] == [6, 6, 6]
    assert [len(x) for x in asked[2][0][:4]] == [1] * 4  # those that were over are not listened to


def test_each_turn_pays_its_last_token_and_the_return_is_the_sum():
    drawn, asked = played()
    more = drawn.more
    for i in range(6):
        at = 0
        for turn in range(i // K + 1):
            word = asked[turn][2][i]
            end = at + len(SAID[word])
            assert more["turn"][i, at:end].tolist() == [turn] * (end - at)
            assert more["token_rewards"][i, end - 1] == pytest.approx(turn + 1 + 0.1 * len(word))
            assert not more["token_rewards"][i, at : end - 1].any()
            np.testing.assert_allclose(
                drawn.log_probs[i, at:end], -0.01 * np.arange(1, end - at + 1) - turn - 1, rtol=1e-6
            )
            at = end
        assert not drawn.log_probs[i, at:].any() and not more["token_rewards"][i, at:].any()
    np.testing.assert_allclose(drawn.reward(), more["token_rewards"].sum(1))
    assert drawn.log_probs.shape == (6, 3 * NEW)


def test_an_episode_without_room_ends_there():
    drawn, asked = played(max_length=18)
    # Episode 2 has no room after its first action, 5 neither, 4 not after its second.
    assert len(asked) == 2 and drawn.stopped.tolist() == [True, True, False, True, False, False]
    assert max(map(len, drawn.examples.tokens)) <= 18
    for i, tokens in enumerate(drawn.examples.tokens):  # what was heard last is not in it
        assert drawn.examples.targets(i)[-1] == len(tokens) - 1
    short = GAME._replace(turns=1)
    write = episodes.playing(short, speak([]), READS, config())
    assert write(None, prompts(), 0, K).stopped.tolist() == [True] * 2 + [False] * 4


def test_keys_are_of_step_seed_episode_and_turn():
    keys = np.stack([k for _, k, _ in played()[1]])
    assert len({tuple(k) for k in keys.reshape(-1, 2).tolist()}) == 3 * 6
    np.testing.assert_array_equal(keys, np.stack([k for _, k, _ in played()[1]]))
    assert np.any(keys != np.stack([k for _, k, _ in played(step=6)[1]]), axis=-1).all()
    alone = []
    episodes.playing(GAME, speak(alone), READS, config())(None, prompts((2,)), 5, K)
    np.testing.assert_array_equal(alone[1][1], keys[1, 4:])


def test_rows_predict_what_was_said_and_nothing_that_was_heard():
    drawn, _ = played()
    bounds = packing.Bounds(3, 96, 16, K, 0, 1, 1, 1, 0)
    batch = packing.lay(drawn.examples, 3, bounds)
    where = packing.Places.of(batch, *drawn.log_probs.shape)
    assert where.mask.sum() == drawn.lengths.sum() == batch["token_weight"].sum()
    for i, tokens in enumerate(drawn.examples.tokens):
        row, at = where.row[i][where.mask[i]], where.at[i][where.mask[i]]
        own = drawn.examples.targets(i)
        target, source = batch["target_at"][row, at], batch["source_at"][row, at]
        np.testing.assert_array_equal(batch["tokens"][row, target], tokens[own])
        np.testing.assert_array_equal(batch["positions"][row, target], own)
        np.testing.assert_array_equal(batch["tokens"][row, source], tokens[own - 1])
        np.testing.assert_array_equal(batch["positions"][row, source], own - 1)


def test_credit_is_by_turn_against_the_group_from_that_turn_on():
    own = advantages.plan(config(kl="fixed(beta=0.5)", loss="policy_gradient()"))
    mask = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], np.float32)
    turn = np.array([[0, 0, 1, 0], [0, 0, 0, 0]])
    paid = np.array([[0, 2, 5, 0], [0, 3, 0, 0]], np.float32)
    nats = np.array([[0.2, 0.4, 0.6, 0], [0.8, 0, 0, 0]], np.float32)
    known = {
        "reward": paid.sum(1), "token_rewards": paid, "turn": turn,
        "old_log_probs": nats - 1, "reference_log_probs": -np.ones_like(nats), "stopped": paid[:, 0] == 0,
        "sampled_log_probs": nats - 1,
    }  # fmt: skip
    arrays, carry, told = own(known, mask, own.start)
    first = (7 - 0.5 * 1.2) - (3 - 0.5 * 0.8)
    second = (5 - 0.5 * 0.6) - 0  # the other episode earned nothing any more
    want = [[first, first, second, 0], [-first, -first, 0, 0]]
    np.testing.assert_allclose(arrays["advantages"], want, rtol=1e-5)
    np.testing.assert_allclose(arrays["advantage"], [first, -first], rtol=1e-5)
    assert told["rollout/kl"] == pytest.approx((1.2 + 0.8) / 2)
    # With a critic the rewards of tokens are summed from each on, through the turns.
    own = advantages.plan(
        config(kl="fixed(beta=0.5)", returns="gae(discount=1.0, decay=1.0)", whiten=False)
    )
    arrays, _, _ = own(known | {"values": np.zeros_like(nats)}, mask, own.start)
    to_go = np.cumsum((paid - 0.5 * nats)[:, ::-1], axis=1)[:, ::-1] * mask
    np.testing.assert_allclose(arrays["returns"], to_go, rtol=1e-5, atol=1e-6)


def test_episodes_of_one_turn_have_the_credit_of_answers():
    own = advantages.plan(config(kl="fixed(beta=0.1)"))
    rng = np.random.default_rng(0)
    mask = (np.arange(4) < rng.integers(1, 5, (6, 1))).astype(np.float32)
    old, reference = rng.normal(size=(2, 6, 4)).astype(np.float32) * mask
    reward = rng.normal(size=6).astype(np.float32)
    last = mask * (np.arange(4) == mask.sum(1, keepdims=True) - 1)
    known = {
        "reward": reward, "old_log_probs": old, "reference_log_probs": reference, "stopped": reward > 0,
    }  # fmt: skip
    more = {"turn": np.zeros((6, 4), int), "token_rewards": reward[:, None] * last}
    one, other = (own(k, mask, own.start)[0] for k in (known, known | more))
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-6)


def test_seeds_are_dealt_once_and_held_out_ones_follow():
    c = config(environment="open_box()", train_seeds=9, validation_prompts=3, test_prompts=4)
    chosen = assembly.plan(c)
    found = chosen.records()
    seeds = [[int(r.id) for r in part] for part in (found.train, found.validation, found.test)]
    assert seeds == [[*range(9)], [9, 10, 11], [12, 13, 14, 15]]
    for record in (*found.train, *found.test):
        assert record.prompt == chosen.environment.reset(int(record.id))[1]
    made, _ = rollout.prompts_of(found.train, READS, 8)
    assert made.number.tolist() == seeds[0]  # a rollout's number is its seed


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ({"environment": "open_boxes()"}, "'environment': there is no 'open_boxes'; did you mean 'open_box'"),
        ({"environment": "open_box(letters=40)"}, "'environment': letters must be in 1..26"),
        ({"environment": "gym(id='CartPole-v1')"}, "'environment': gym(id='CartPole-v1'): its observation_space is"),
        ({"data": "sums()"}, "'data': an environment gives its own observations and rewards, turn by turn; set data="),
        ({"reward_shaping": "normalize()"}, "'reward_shaping': an environment gives its own"),
        ({"reward": "regex(pattern='e')"}, "'reward': an environment gives its own"),
        ({"gold": "length(target=3)"}, "'gold': an environment gives its own"),
        ({"prompts": "opening(words=2)"}, "'prompts': an environment's first observations are the prompts"),
        ({"loss": "mle() + reinforce()"}, "'loss': mle learns from texts of the data; an environment has none"),
        ({"loss": "relaxed()"}, "'loss': relaxed() differentiates a reward model; an environment gives rewards"),
        ({"rollout_parts": 2}, "'rollout_parts': an environment rewards each turn before the next is sampled"),
        ({"baseline": "moving_average()"}, "'baseline': an average of whole returns is none of what later turns earn"),
        ({"samples": 0}, "'samples': an environment is learned from by playing it"),
        ({"train_seeds": 7}, "'train_seeds': 7 are fewer than batch_size=8"),
        ({"max_length": 10}, "'max_length': 10 holds no first observation (max_prompt=8) with an action"),
        ({"environment": "none()"}, "'reward': samples are learned from by their reward; name one"),
    ],
)  # fmt: skip
def test_lines_that_mean_nothing_beside_an_environment_are_refused(lines, message):
    with pytest.raises(UserError) as error:
        assembly.plan(config(**lines))
    assert message in str(error.value)


def test_an_encoder_plays_no_game():
    c = config(policy="tiny_encoder_decoder()", train_seeds=8)
    plan = assembly.plan(c)
    with pytest.raises(
        UserError, match="'policy': tiny_encoder_decoder.* reads prompts by an encoder"
    ):
        assembly.backbone(c, plan, plan.records())
