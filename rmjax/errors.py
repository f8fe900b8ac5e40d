"""The one exception for what the user can mend."""


class UserError(Exception):
    """A mistake in a config, a file or a command; its text names the place and the fix.

    `launch` prints it as one paragraph and exits with code 2.
    """
