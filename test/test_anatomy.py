import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threedme_ros.anatomy import Anatomy, AnatomyError, Role, Structure

ROW = {"id": 4, "name": "liver", "colour": [221, 130, 101], "margin_mm": 3.0, "role": "target"}


def test_the_table_that_ships_has_the_sixteen_structures(anatomy):
    names = "spleen kidney_right kidney_left liver stomach pancreas colon small_bowel urinary_bladder aorta"
    names += " inferior_vena_cava vertebrae hips ribs autochthon iliopsoas"
    assert [s.name for s in anatomy] == names.split()
    assert [s.id for s in anatomy] == list(range(1, 17))
    assert anatomy.num_classes == 17
    assert len({s.colour for s in anatomy}) == 16
    assert anatomy["aorta"].role is Role.NO_GO and anatomy["aorta"].margin_mm == 5.0


def test_lookup_by_name_and_id(anatomy):
    assert anatomy["liver"] is anatomy[4]
    assert "liver" in anatomy and 4 in anatomy and "tumour" not in anatomy and 0 not in anatomy
    with pytest.raises(AnatomyError, match=r"unknown structure 'tumour': expected one of \['spleen'"):
        anatomy["tumour"]


def test_json_round_trip(anatomy):
    assert Anatomy.from_json(anatomy.to_json()) == anatomy
    assert json.loads(anatomy.to_json())[3] == ROW


def test_colour_map_is_indexed_by_voxel_value():
    table = Anatomy([Structure(**ROW)]).colour_map()
    assert (table.shape, table.dtype) == ((256, 3), np.uint8)
    assert table[4].tolist() == [221, 130, 101]
    assert not np.delete(table, 4, axis=0).any()


def test_order_is_by_id():
    rows = [Structure(**ROW), Structure(**ROW | {"id": 2, "name": "kidney"})]
    assert [s.id for s in Anatomy(rows)] == [2, 4]
    assert Anatomy(rows).num_classes == 5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id": 0}, "structure 'liver': id 0: expected an integer from 1 to 255"),
        ({"id": 256}, "id 256"),
        ({"id": "4"}, "id '4'"),
        ({"id": True}, "id True"),
        ({"name": ""}, "name ''"),
        ({"name": 7}, "name 7"),
        ({"colour": [1, 2]}, r"colour \[1, 2\]"),
        ({"colour": [1, 2, 256]}, "expected three integers from 0 to 255"),
        ({"colour": "red"}, "colour 'red'"),
        ({"margin_mm": -1}, "margin_mm -1: expected 0 to 100 mm"),
        ({"margin_mm": float("nan")}, "margin_mm nan"),
        ({"margin_mm": "3"}, "margin_mm '3'"),
        ({"role": "avoid"}, r"role 'avoid': expected one of \['no-go', 'target', 'context'\]"),
    ],
)
def test_a_row_that_breaks_a_rule_is_named(change, reason):
    with pytest.raises(AnatomyError, match=reason):
        Structure(**ROW | change)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("structures: []", "empty label table"),
        ("organs: []", "expected a mapping with a list under `structures`"),
        ("[1, 2]", "expected a mapping"),
        ("structures: {a: 1}", "expected a mapping with a list"),
        ("structures: [liver]", "row 'liver': expected exactly the keys"),
        ("structures: [{id: 1, name: liver}]", "expected exactly the keys"),
        ("structures: [", "while parsing"),
        ("a: !!python/object/apply:os.system [true]", "YAML tag .*expected plain values"),
    ],
)
def test_a_file_that_is_no_table_is_refused_with_its_name(tmp_path, text, reason):
    path = tmp_path / "anatomy.yaml"
    path.write_text(text)
    with pytest.raises(AnatomyError, match=rf"anatomy\.yaml: .*{reason}") as caught:
        Anatomy.from_yaml(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_an_anatomy_error(tmp_path):
    with pytest.raises(AnatomyError, match="No such file"):
        Anatomy.from_yaml(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ("not json", "{}", "5", "[5]", "null"))
def test_json_that_is_no_table_is_refused(text):
    with pytest.raises(AnatomyError):
        Anatomy.from_json(text)


@pytest.mark.parametrize("key", ("id", "name"))
def test_doubles_are_refused(key):
    other = ROW | {"id": 5, "name": "spleen"} | {key: ROW[key]}
    with pytest.raises(AnatomyError, match=f"two structures with {key} {ROW[key]!r}"):
        Anatomy([Structure(**ROW), Structure(**other)])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{id: 9, name: aorta, colour: [1, 2, 3], margin_mm: -1.0, role: no-go}", "margin_mm -1.0"),
        ("{id: 4, name: aorta, colour: [1, 2, 3], margin_mm: 1.0, role: no-go}", "two structures with id 4"),
        ("{id: 9, name: liver, colour: [1, 2, 3], margin_mm: 1.0, role: no-go}", "two structures with name 'liver'"),
        ("{id: 9, name: aorta, color: [1, 2, 3], margin_mm: 1.0, role: no-go}", "expected exactly the keys"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(tmp_path, row, reason):
    path = tmp_path / "anatomy.yaml"
    good = "{id: 4, name: liver, colour: [1, 2, 3], margin_mm: 3.0, role: target}"
    path.write_text(f"# a comment\nstructures:\n  - {good}\n\n  - {row}\n")
    with pytest.raises(AnatomyError, match="line 5: ") as error:
        Anatomy.from_yaml(path)
    assert str(path) in str(error.value) and reason in str(error.value)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    st.lists(
        st.builds(
            Structure,
            id=st.integers(1, 255),
            name=st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20),
            colour=st.tuples(*[st.integers(0, 255)] * 3),
            margin_mm=st.floats(0, 100),
            role=st.sampled_from(Role),
        ),
        min_size=1,
        max_size=8,
        unique_by=(lambda s: s.id, lambda s: s.name),
    )
)
def test_any_table_comes_back_from_json(structures):
    assert Anatomy.from_json(Anatomy(structures).to_json()) == Anatomy(structures)


@pytest.mark.parametrize("name", ("a\nb", "\x1b[2J", "a" * 101, "\u2028", ""))
def test_names_are_short_and_printable(name):
    with pytest.raises(AnatomyError, match="printable characters") as caught:
        Structure(1, name, (0, 0, 0), 0.0, Role.TARGET)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("key", ("id", "name", "colour", "margin_mm", "role"))
def test_an_integer_too_long_to_print_is_refused_by_its_line(tmp_path, key):
    row = {"id": "1", "name": "liver", "colour": "[1, 2, 3]", "margin_mm": "0", "role": "no-go"} | {
        key: "0x" + "f" * 5000
    }
    path = tmp_path / "anatomy.yaml"
    path.write_text("structures:\n- {" + ", ".join(f"{k}: {v} " for k, v in row.items()) + "}\n")
    with pytest.raises(AnatomyError, match=r"anatomy\.yaml: YAML integer 0xf+\.\.\. of 5002 characters in line 2"):
        Anatomy.from_yaml(path)
