"""The game's rules, and that no player who does not heed the first answer beats the known bound."""

import itertools
import string

import pytest

from rmjax.environments import ENVIRONMENTS, games


def outcomes(environment, boxes, digits):
    """A seed of each equally likely start, by (letter, digit)."""
    found, seed = {}, 0
    while len(found) < boxes * digits:
        state, _ = environment.reset(seed)
        found.setdefault((state.letter, state.digit), seed)
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
    environment = games.open_box(boxes=3, digits=4)
    starts = outcomes(environment, 3, 4)
    for seed in starts.values():
        assert play(environment, seed, lambda seen: f" {seen[-1][-1]}\n") == [0.25, 0.75]
    # Another box, or no box at all, shows nothing.
    state, observation = environment.reset(starts["b", "3"])
    assert observation == "open b"
    for action in ("a", "bb", "", "3", "open b", "é"):
        found = environment.step(state, action)
        assert (found.observation, found.reward, found.done) == ("empty", 0, False)
        assert environment.step(found.state, "3")[2:] == (0.75, True)
        assert environment.step(found.state, "")[2:] == (0, True)


@pytest.mark.parametrize(("boxes", "digits"), [(1, 2), (2, 3)])
def test_the_bound_is_what_the_best_blind_player_earns(boxes, digits):
    environment = games.open_box(boxes=boxes, digits=digits)
    starts = outcomes(environment, boxes, digits)
    letters = string.ascii_lowercase[:boxes]
    figures = "0123456789"[:digits]
    first, second = [*letters, "0", ""], [*figures, "a"]
    best = best_of_one_turn = 0.0
    # Every player whose actions depend on the first observation alone; randomness mixes these.
    for opens in itertools.product(first, repeat=boxes):
        for tells in itertools.product(second, repeat=boxes):
            of = lambda seen, o=opens, t=tells: (o, t)[len(seen) - 1][letters.index(seen[0][-1])]
            rewards = [play(environment, seed, of) for seed in starts.values()]
            best = max(best, sum(map(sum, rewards)) / len(starts))
            best_of_one_turn = max(best_of_one_turn, sum(r[0] for r in rewards) / len(starts))
    assert best == pytest.approx(games.blind_return(digits))
    assert best_of_one_turn == games.CLUE < games.blind_return(digits) < 1


def test_an_episode_is_of_its_seed_and_actions_alone():
    environment = ENVIRONMENTS["open_box"]()
    assert environment.reset(7) == environment.reset(7)
    state, _ = environment.reset(7)
    assert environment.step(state, state.letter) == environment.step(state, state.letter)
    starts = {environment.reset(seed) for seed in range(400)}
    assert len(starts) == 16  # all that there are


@pytest.mark.parametrize("numbers", [{"boxes": 0}, {"boxes": 27}, {"digits": 0}, {"digits": 11}])
def test_numbers_that_letters_and_digits_do_not_reach_are_refused(numbers):
    with pytest.raises(ValueError, match="boxes must be in 1..26 and digits in 1..10"):
        games.open_box(**numbers)
