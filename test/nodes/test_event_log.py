import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rclpy")
from threedme_ros.nodes.event_log import BURST, MAX_SOURCES, PERIOD_S, EventLog, log_line, parse_log_line


class Lines(list):
    """A logger that keeps what it gets, and a clock."""

    def __init__(self):
        super().__init__()
        self.now = 100.0

    def info(self, line):
        self.append(("info", line))

    def warning(self, line):
        self.append(("warning", line))

    def error(self, line):
        self.append(("error", line))


def test_no_value_forges_the_line_of_another_event():
    forged = "x | event=volume_segmented checkpoint=feedface"
    said = parse_log_line(log_line("volume refused", "volume_refused", {"frame": forged, "stamp": "1.0"}))
    assert said == {"text": "volume refused", "event": "volume_refused", "frame": forged, "stamp": "1.0"}


def test_a_terminal_obeys_nothing_in_a_line():
    assert log_line("red \x1b[31m \x85 \u2028 café", "e", {"v": "\x1b"}) == 'red ?[31m café | event=e v="\\u001b"'


@pytest.fixture
def lines():
    return Lines()


@pytest.fixture
def log(lines):
    return EventLog(lines, clock=lambda: lines.now)


def test_a_line_is_for_a_person_first_and_for_a_machine_after():
    line = log_line("volume refused: empty", "volume_refused", {"stamp": "12.250000000", "frame": "the patient"})
    assert line == 'volume refused: empty | event=volume_refused stamp=12.250000000 frame="the patient"'
    assert parse_log_line(line) == {
        "text": "volume refused: empty",
        "event": "volume_refused",
        "stamp": "12.250000000",
        "frame": "the patient",
    }
    assert parse_log_line("some other line") == {}


@given(st.text(), st.dictionaries(st.text(string.ascii_lowercase, min_size=1), st.text(max_size=100), max_size=4))
def test_whatever_it_holds_it_is_one_line_and_every_value_comes_back(text, fields):
    fields.pop("event", None), fields.pop("text", None)
    line = log_line(text, "e", fields)
    assert len(line.splitlines()) == 1
    parsed = parse_log_line(line)
    assert parsed["event"] == "e"
    assert {key: parsed[key] for key in fields} == fields


def test_a_thousand_of_one_event_are_a_few_lines_and_none_goes_uncounted(lines, log):
    for n in range(1000):
        lines.now += 0.01  # 10 s in all
        log.warning("volume_refused", f"volume refused: {n}")
        if n % 100 == 99:
            log.flush()
    log.flush(everything=True)
    assert BURST < len(lines) <= BURST + 10 / PERIOD_S + 2
    counted = sum(int(parse_log_line(line).get("suppressed", 1)) for _, line in lines)
    assert counted == 1000
    assert lines[0][1].startswith("volume refused: 0 |") and lines[-1][1].startswith("volume refused: 999 |")


def test_events_and_their_sources_are_throttled_apart(lines, log):
    for _ in range(BURST):
        log.warning("a", "one")
    lines.clear()
    log.error("b", "two")
    log.warning("a", "three", source="x")
    log.warning("a", "four")
    assert [line.split(" |")[0] for _, line in lines] == ["two", "three"]
    assert [level for level, _ in lines] == ["error", "warning"]


def test_what_comes_rarely_is_told_each_time(lines, log):
    for _ in range(3 * BURST):
        log.info("a", "again")
        lines.now += PERIOD_S
        log.flush()
    assert [line for _, line in lines] == ["again | event=a"] * 3 * BURST


def test_a_trace_follows_its_line_and_does_not_hide_it(lines, log):
    log.error("failed", "not segmented: boom", trace="Traceback:\n  | event=no\n")
    assert parse_log_line(lines[0][1])["event"] == "failed"
    assert "Traceback" in lines[0][1]


def test_sources_without_number_cost_no_memory_and_lose_no_count(lines, log):
    for n in range(3 * MAX_SOURCES):
        for _ in range(BURST + 2):
            log.warning("a", "x", source=n)
    log.flush(everything=True)
    assert len(log._told) == MAX_SOURCES
    said = sum(int(parse_log_line(line).get("suppressed", 1)) for _, line in lines)
    assert said == 3 * MAX_SOURCES * (BURST + 2)
