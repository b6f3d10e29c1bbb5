import logging

from threedme_ros.nodes.event_log import EventLog, parse_log_line
from threedme_ros.nodes.log_bridge import PACKAGE_LOGGER, RosLogHandler


class RosLogger:
    def __init__(self) -> None:
        self.lines = []

    def info(self, text: str) -> None:
        self.lines.append(("info", text))

    def warning(self, text: str) -> None:
        self.lines.append(("warning", text))


def test_builds_and_refusals_of_an_engine_reach_the_ros_log_while_the_node_lives() -> None:
    ros, warned = RosLogger(), []
    before = PACKAGE_LOGGER.level, list(PACKAGE_LOGGER.handlers)
    handler = RosLogHandler(EventLog(ros), warned.append)
    engine = logging.getLogger("threedme_ros.inference.engines.chain")
    engine.debug("not this")
    engine.info("tensorrt: building %d%%", 40)
    engine.warning("engine refused: %s", "tensorrt: no")
    handler.close()
    engine.warning("after the node's end")
    told = [(level, parse_log_line(text)) for level, text in ros.lines]
    assert [(level, row["text"]) for level, row in told] == [
        ("info", "tensorrt: building 40%"),
        ("warning", "engine refused: tensorrt: no"),
    ]
    assert all(row["event"] == "test_log_bridge" and "test_builds" in row["source"] for _, row in told)
    assert warned == ["engine refused: tensorrt: no"]
    assert (PACKAGE_LOGGER.level, PACKAGE_LOGGER.handlers) == before
