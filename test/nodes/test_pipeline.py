from dataclasses import asdict

import pytest
import yaml

pytest.importorskip("rclpy")

from threedme_ros.anatomy import Anatomy, AnatomyError, Structure
from threedme_ros.nodes.pipeline import matched_anatomy, with_margins

TABLE = Anatomy([Structure(4, "liver", (1, 2, 3), 3.0, "target"), Structure(10, "aorta", (4, 5, 6), 5.0, "no-go")])


def written(path, anatomy):
    rows = [{**asdict(s), "colour": list(s.colour), "role": str(s.role)} for s in anatomy]
    path.write_text(yaml.safe_dump({"structures": rows}))
    return str(path)


def test_without_a_table_the_checkpoints_own_is_used():
    assert matched_anatomy(TABLE, "") is TABLE


def test_other_colours_and_margins_are_taken_from_the_table(tmp_path):
    other = with_margins(TABLE, {"aorta": 8.0})
    assert matched_anatomy(TABLE, written(tmp_path / "anatomy.yaml", other)) == other
    assert [s.margin_mm for s in other] == [3.0, 8.0]


def test_table_with_other_ids_is_refused_with_the_difference(tmp_path):
    swapped = Anatomy([Structure(10, "liver", (1, 2, 3), 3.0, "target")])
    with pytest.raises(AnatomyError, match=r"only here \[\(10, 'liver'\)\].*\(4, 'liver'\)"):
        matched_anatomy(TABLE, written(tmp_path / "anatomy.yaml", swapped))
    with pytest.raises(AnatomyError, match=r"nowhere\.yaml"):
        matched_anatomy(TABLE, str(tmp_path / "nowhere.yaml"))
