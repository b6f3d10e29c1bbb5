"""The package's own log (Python's logging) in the ROS log of a node: builds under way, engines refused, a bad cache."""

from __future__ import annotations

import logging
from collections.abc import Callable

PACKAGE_LOGGER = logging.getLogger("threedme_ros")


class RosLogHandler(logging.Handler):
    """Hands every record of the package, INFO and above, to ``ros_logger``; ``warned`` gets each warning's text.

    Attached while open; records come from whatever thread works.
    """

    def __init__(self, ros_logger, warned: Callable[[str], None] = lambda text: None) -> None:
        super().__init__(logging.INFO)
        self._ros_logger, self._warned = ros_logger, warned
        self._level_before = PACKAGE_LOGGER.level
        PACKAGE_LOGGER.addHandler(self)
        PACKAGE_LOGGER.setLevel(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            self._ros_logger.warning(text)
            self._warned(text)
        else:
            self._ros_logger.info(text)

    def close(self) -> None:
        PACKAGE_LOGGER.removeHandler(self)
        PACKAGE_LOGGER.setLevel(self._level_before)
        super().close()
