"""The ranges of hyperparameters, refused by name outside; NaN is outside of each."""


def positive(**values: float | int) -> None:
    """Raises: ValueError unless all are > 0."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")


def not_negative(**values: float | int) -> None:
    """Raises: ValueError unless all are >= 0."""
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name} must not be negative, got {value}")
