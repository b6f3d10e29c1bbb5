"""What training refuses."""

from threedme_ros.model.config import is_number
from threedme_ros.refusal import RefusalError


class TrainingError(RefusalError):
    """A training run cannot start or go on; the message names the value and what was expected."""


def check_positive(name: str, value: object) -> None:
    """TrainingError unless ``value`` is a finite number above 0."""
    if not is_number(value) or not value > 0:
        raise TrainingError(f"{name} {value!r}: expected a positive number")
