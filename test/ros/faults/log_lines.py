"""What a node printed, as lines of its `EventLog`: how often something was said, and how often it was written."""

from collections import Counter

from threedme_ros.nodes.event_log import BURST, PERIOD_S, parse_log_line


def lines_of(output: str, event: str) -> list[dict[str, str]]:
    return [line for line in map(parse_log_line, output.splitlines()) if line.get("event") == event]


def times_said(output: str, event: str) -> int:
    """With what was suppressed, as far as that is told."""
    return sum(int(line.get("suppressed", 1)) for line in lines_of(output, event))


def throttled(output: str, event: str, seconds: float) -> None:
    """No source wrote more than it may within ``seconds``.

    A line that tells what was suppressed comes beside the line that was free again, so at most one in a period.
    """
    written = Counter((line.get("source"), "suppressed" in line) for line in lines_of(output, event))
    for (source, summary), count in written.items():
        most = (1 if summary else BURST) + seconds / PERIOD_S
        assert count <= most, f"{count} lines of {event} {source or ''} in {seconds:.1f} s: expected at most {most:.1f}"
