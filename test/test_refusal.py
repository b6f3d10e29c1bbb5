import pytest

from threedme_ros.refusal import MAX_CHARACTERS, RefusalError, one_line


def test_a_plain_reason_stays_as_it_is():
    assert str(RefusalError("spacing 0: expected more")) == "spacing 0: expected more"


@pytest.mark.parametrize("text", ("one\ntwo", "one\r\n  two", "one\u2028two", "one\x0btwo"))
def test_line_breaks_become_spaces(text):
    assert one_line(text) == "one two"


def test_what_steers_a_terminal_is_replaced():
    assert one_line("\x1b[2J liver \ud800") == "?[2J liver ?"


def test_a_long_text_keeps_its_start_and_its_end():
    text = one_line("a" * 10_000 + ": expected b")
    assert len(text) <= MAX_CHARACTERS and text.startswith("aaa") and text.endswith(": expected b")
