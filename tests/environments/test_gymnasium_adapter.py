"""Our environments as gymnasium's, and back: the same episodes, and what is no text is refused."""

import warnings

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

from rmjax.environments import games
from rmjax.environments.gymnasium import TextEnv, gym
from rmjax.errors import UserError

BOX = "rmjax_tests/Box-v0"


@pytest.fixture(scope="module", autouse=True)
def registered():
    make = lambda: TextEnv(games.open_box())
    gymnasium.register(BOX, make, max_episode_steps=2)
    gymnasium.register("rmjax_tests/Endless-v0", make)
    gymnasium.register("rmjax_tests/Dice-v0", Dice, max_episode_steps=5)
    yield
    for name in (BOX, "rmjax_tests/Endless-v0", "rmjax_tests/Dice-v0"):
        del gymnasium.registry[name]


class Dice(gymnasium.Env):
    """Says a number at every turn, of a generator that moves on, and earns it where it was said again."""

    observation_space = gymnasium.spaces.Text(1, charset="0123456789")
    action_space = gymnasium.spaces.Text(1, charset="0123456789")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.last = str(self.np_random.integers(10))
        return self.last, {}

    def step(self, action):
        reward = int(action == self.last)
        self.last = str(self.np_random.integers(10))
        return self.last, reward, False, False, {}


def test_gymnasium_finds_nothing_to_complain_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(TextEnv(games.open_box()), skip_render_check=True)


def test_an_episode_is_the_one_of_its_seed():
    environment, env = games.open_box(), TextEnv(games.open_box())
    for seed in range(6):
        state, first = environment.reset(seed)
        assert env.reset(seed=seed) == (first, {})
        found = environment.step(state, state.letter)
        assert env.step(state.letter) == (found.observation, 0.25, False, False, {})
        assert env.step(state.holds) == ("", 0.75, True, False, {})
    env.reset(seed=3)
    others = [env.reset()[0] for _ in range(20)]
    env.reset(seed=3)
    assert [env.reset()[0] for _ in range(20)] == others and len({*others}) > 1


def test_what_is_not_done_by_the_last_turn_is_truncated():
    endless = games.open_box()._replace(turns=1)
    env = TextEnv(endless)
    env.reset(seed=0)
    assert env.step("a")[2:4] == (False, True)


def test_there_and_back_plays_the_same():
    ours, back = games.open_box(), gym(id=BOX)
    assert back.turns == 2 and back.name == BOX
    for seed in range(6):
        state, first = ours.reset(seed)
        there, again = back.reset(seed)
        assert again == first
        for action in (state.letter, state.holds):
            mine, theirs = ours.step(state, action), back.step(there, action)
            assert mine[1:] == theirs[1:]
            state, there = mine.state, theirs.state


def test_steps_are_pure_though_gymnasium_is_not():
    dice = gym(id="rmjax_tests/Dice-v0")
    one, said = dice.reset(1)
    two, other = dice.reset(2)
    first = dice.step(one, said)
    assert first.reward == 1 and not first.done
    for _ in range(3):  # in any order, among episodes of other seeds
        assert dice.step(two, other) == dice.step(two, other)
        assert dice.step(one, said) == first
    second = dice.step(first.state, first.observation)
    assert second.reward == 1 and dice.step(first.state, first.observation) == second


def test_the_turn_limit_ends_an_episode():
    dice = gym(id="rmjax_tests/Dice-v0")
    state, _ = dice.reset(0)
    ends = []
    for _ in range(5):
        state, _, _, done = dice.step(state, "0")
        ends.append(done)
    assert ends == [False] * 4 + [True]


def test_an_action_outside_the_space_is_not_taken():
    dice = gym(id="rmjax_tests/Dice-v0")
    state, said = dice.reset(1)
    for action in ("x", "12", ""):
        assert dice.step(state, action) == (state, said, 0.0, False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id": "rmjax_tests/Nope-v0"}, "Nope"),
        ({"id": "no_such_module:X-v0"}, "no_such_module"),
        ({"id": "CartPole-v1"}, "its observation_space is Box"),
        ({"id": "rmjax_tests/Endless-v0"}, "names no max_episode_steps; say turns="),
    ],
)
def test_what_cannot_be_played_is_refused(options, message):
    with pytest.raises(UserError, match="config key 'environment': gym") as error:
        gym(**options)
    assert message in str(error.value)
    assert gym(id="rmjax_tests/Endless-v0", turns=7).turns == 7
