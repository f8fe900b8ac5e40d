"""Properties are tried on the same examples in every run, and no time limit fails them."""

from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")
