import pytest

from threedme_ros.training.experiments.table import Difference, Spread, insert, markdown


def test_spread_is_mean_lowest_and_highest():
    assert Spread.of([0.3, 0.1, 0.5]) == Spread(pytest.approx(0.3), 0.1, 0.5)
    assert Spread.of([0.3, 0.1, 0.5]).text(2) == "0.30 (0.10 to 0.50)"
    assert Spread.of([3.68, 3.68, 3.68]).text(1) == "3.7"
    with pytest.raises(ValueError, match="no values"):
        Spread.of([])


def test_differences_are_taken_seed_by_seed():
    difference = Difference.of([0.5, 0.2, 0.6], [0.4, 0.3, 0.3])
    assert difference.spread == Spread(pytest.approx(0.1), pytest.approx(-0.1), pytest.approx(0.3))
    assert difference.text(1) == "+0.1 (-0.1 to +0.3)"
    with pytest.raises(ValueError, match="2 values against 3"):
        Difference.of([1, 2], [1, 2, 3])


@pytest.mark.parametrize(
    ("values", "apart"), [([4, 5, 6], True), ([-1, 0, 0.5], True), ([3, 4, 5], False), ([0, 2, 9], False)]
)
def test_arms_are_apart_when_their_ranges_do_not_overlap(values, apart):
    difference = Difference.of(values, [1, 2, 3])
    assert difference.apart is apart
    assert difference.text(0).startswith("**") is apart


def test_markdown_has_a_cell_for_every_column():
    assert markdown(["arm", "Dice"], [["full", "0.5"]]) == "| arm | Dice |\n| --- | ---: |\n| full | 0.5 |\n"
    with pytest.raises(ValueError, match="expected 2 cells"):
        markdown(["arm", "Dice"], [["full"]])


def test_a_table_replaces_the_one_in_a_document(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("# Page\n<!-- ablation -->\nold\n<!-- /ablation -->\nend\n")
    insert(path, "ablation", "first\n")
    insert(path, "ablation", "new\n")
    assert path.read_text() == "# Page\n<!-- ablation -->\n\nnew\n\n<!-- /ablation -->\nend\n"
    with pytest.raises(ValueError, match="expected the lines <!-- masking -->"):
        insert(path, "masking", "new")
