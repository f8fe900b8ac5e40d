"""The game's rules, and that no player who does not heed the first answer beats the known bound."""

import itertools
import string

import pytest

from rmjax.environments import ENVIRONMENTS, games


def outcomes(environment, letters):
    """A seed of each equally likely start, by (letter, what its box holds)."""
    found, seed = {}, 0
    while len(found) < letters**2:
        state, _ = environment.reset(seed)
        found.setdefault((state.letter, state.holds), seed)
        seed += 1
    return found


def play(environment, seed, player):
    """The rewards of an episode; player(observations so far) -> action."""
    state, observation = environment.reset(seed)
    seen, rewards, done = [observation], [], False
    while not done and len(rewards) < environment.turns:
        state, observation, reward, done = environment.step(state, player(seen))
        seen.append(observation)
        rewards.append(reward)
    assert done
    return rewards


def test_a_player_who_opens_and_tells_earns_all():
    environment = games.open_box(letters=4)
    starts = outcomes(environment, 4)
    for seed in starts.values():
        assert play(environment, seed, lambda seen: f" {seen[-1][-1]}\n") == [0.25, 0.75]
    # Another box, or no box at all, shows nothing.
    state, observation = environment.reset(starts["b", "d"])
    assert observation == "open b"
    for action in ("a", "bb", "", "d", "open b", "é"):
        found = environment.step(state, action)
        assert (found.observation, found.reward, found.done) == ("empty", 0, False)
        assert environment.step(found.state, "d")[2:] == (0.75, True)
        assert environment.step(found.state, "b")[2:] == (0, True)


@pytest.mark.parametrize("letters", [1, 2, 3])
def test_the_bound_is_what_the_best_blind_player_earns(letters):
    environment, known = games.open_box(letters=letters), string.ascii_lowercase[:letters]
    starts = outcomes(environment, letters)
    best = best_of_one_turn = 0.0
    # Every player whose actions depend on the first observation alone; randomness mixes these.
    said = list(itertools.product([*known, ""], repeat=letters))
    for opens, tells in itertools.product(said, repeat=2):
        player = lambda seen, o=opens, t=tells: (o, t)[len(seen) - 1][known.index(seen[0][-1])]
        rewards = [play(environment, seed, player) for seed in starts.values()]
        best = max(best, sum(map(sum, rewards)) / len(starts))
        best_of_one_turn = max(best_of_one_turn, sum(r[0] for r in rewards) / len(starts))
    assert best == pytest.approx(games.blind_return(letters))
    assert best_of_one_turn == games.CLUE < games.blind_return(letters) <= 1


def test_an_episode_is_of_its_seed_and_actions_alone():
    environment = ENVIRONMENTS["open_box"]()
    assert environment.reset(7) == environment.reset(7)
    state, _ = environment.reset(7)
    assert environment.step(state, state.letter) == environment.step(state, state.letter)
    starts = {environment.reset(seed) for seed in range(400)}
    assert len(starts) == 16  # all that there are


@pytest.mark.parametrize("letters", [0, 27])
def test_a_number_that_the_alphabet_does_not_have_is_refused(letters):
    with pytest.raises(ValueError, match="letters must be in 1..26"):
        games.open_box(letters=letters)
