"""The package's own log (Python's logging) in the ROS log of a node: builds under way, engines refused, a bad cache."""

from __future__ import annotations

import logging
from collections.abc import Callable

from threedme_ros.nodes.event_log import EventLog

PACKAGE_LOGGER = logging.getLogger("threedme_ros")


class RosLogHandler(logging.Handler):
    """Hands every record of the package, INFO and above, to ``log``; ``warned`` gets each warning's text.

    Its event is the module it comes from, its source the place there, so that each line is throttled by itself.

    Attached while open; records come from whatever thread works.
    """

    def __init__(self, log: EventLog, warned: Callable[[str], None] = lambda text: None) -> None:
        super().__init__(logging.INFO)
        self._log, self._warned = log, warned
        self._level_before = PACKAGE_LOGGER.level
        PACKAGE_LOGGER.addHandler(self)
        PACKAGE_LOGGER.setLevel(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        event, source = record.module, f"{record.module}.{record.funcName}:{record.lineno}"
        if record.levelno >= logging.WARNING:
            self._log.warning(event, text, source=source)
            self._warned(text)
        else:
            self._log.info(event, text, source=source)

    def close(self) -> None:
        PACKAGE_LOGGER.removeHandler(self)
        PACKAGE_LOGGER.setLevel(self._level_before)
        super().close()
