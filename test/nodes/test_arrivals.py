import pytest

from threedme_ros.nodes.arrivals import MAX_PUBLISHERS, Arrivals


def info(number, publisher=b"a"):
    return {"publication_sequence_number": number, "publisher_gid": {"data": publisher}}


def test_what_lies_between_two_messages_of_one_publisher_was_missed():
    arrivals = Arrivals()
    assert [arrivals.missed(info(n)) for n in (1, 2, 5, 6, 10)] == [0, 0, 2, 0, 3]


def test_a_publisher_counts_from_its_first_message_that_arrives():
    arrivals = Arrivals()
    assert arrivals.missed(info(7)) == 0
    assert arrivals.missed(info(9)) == 1


def test_each_publisher_counts_for_itself():
    arrivals = Arrivals()
    found = [arrivals.missed(info(n, p)) for n, p in ((1, b"a"), (4, b"b"), (2, b"a"), (6, b"b"))]
    assert found == [0, 0, 0, 1]


def test_a_number_that_comes_again_is_nothing_missed():
    arrivals = Arrivals()
    assert [arrivals.missed(info(n)) for n in (3, 3, 2, 4)] == [0, 0, 0, 0]


@pytest.mark.parametrize("told", [{}, {"publication_sequence_number": 4}, {"publisher_gid": None}])
def test_without_number_or_publisher_nothing_is_counted(told):
    arrivals = Arrivals()
    arrivals.missed(info(1))
    assert arrivals.missed(told) == 0


def test_publishers_that_come_and_go_cost_no_memory():
    arrivals = Arrivals()
    for n in range(3 * MAX_PUBLISHERS):
        arrivals.missed(info(1, str(n).encode()))
    assert len(arrivals._last) == MAX_PUBLISHERS
