"""What training refuses."""

from threedme_ros.refusal import RefusalError


class TrainingError(RefusalError):
    """A training run cannot start or go on; the message names the value and what was expected."""
