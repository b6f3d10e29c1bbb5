from threedme_ros.nodes.stamps import StampWatch

S = 10**9


def test_stamps_that_rise_are_nothing_odd():
    watch = StampWatch()
    assert [watch.look(second * S, 100 * S) for second in (1, 2, 100, 101)] == [""] * 4
    assert watch.counts == {"repeated": 0, "reversed": 0, "ahead": 0}


def test_what_is_odd_is_told_and_counted():
    watch = StampWatch()
    watch.look(5 * S, 100 * S)
    assert watch.look(5 * S, 100 * S) == "stamp 5.000 repeats the one before"
    assert watch.look(3 * S, 100 * S) == "stamp 3.000 is 2.000 s before the one before"
    assert watch.look(4 * S, 100 * S) == ""  # after a step back the source's clock runs on from there
    assert watch.look(102 * S, 100 * S) == "stamp 102.000 is 2.000 s ahead of this node's clock"
    assert watch.counts == {"repeated": 1, "reversed": 1, "ahead": 1}


def test_simulated_time_that_has_not_begun_makes_every_stamp_one_ahead():
    watch = StampWatch()
    assert "ahead of this node's clock" in watch.look(5 * S, 0)
