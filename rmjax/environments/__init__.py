"""The environments that a config can name; each call gives an `Environment`."""

from rmjax.environments import games, gymnasium

ENVIRONMENTS = {f.__name__: f for f in (games.open_box, gymnasium.gym)}
