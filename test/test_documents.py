import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threedme_ros.documents import (
    MAX_JSON_CHARACTERS,
    MAX_YAML_BYTES,
    DocumentError,
    parse_json,
    parse_mapping,
    parse_yaml,
    read_json,
    read_yaml,
)

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)


def test_aliases_and_merge_keys_serve_as_in_our_own_tables():
    text = "rows:\n- &paper {source: x, year: 2021}\n- {<<: *paper, year: 2022}\n"
    assert parse_yaml(text) == {"rows": [{"source": "x", "year": 2021}, {"source": "x", "year": 2022}]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LAUGHS, "more than 100000 values, aliases followed"),
        ("a: &a [*a]", "alias 'a' in line 1 is unknown here"),
        ("a: *b", "alias"),
        ("[&a 1, &a 2]", "no usable YAML: found duplicate anchor"),
        ("a: " + "[" * 60 + "]" * 60, "more than 50 levels"),
        ("[" * 5000 + "]" * 5000, "more than 50 levels|max depth|nesting"),
        ("a: !!python/object/apply:os.system ['id']", "tag .*expected plain values"),
        ("a: !!int ''", "tag .*expected plain values"),
        ("a: !!bool maybe", "tag .*expected plain values"),
        ("a: 2001-99-99", "no usable YAML: month must be"),
        ("a: " + "9" * 5000, r"YAML integer 9{20}\.\.\. of 5000 characters in line 1: expected at most 64"),
        ("- 0\n- {a: 0x" + "f" * 5000 + " }", "of 5002 characters in line 2"),
        ("a: 0b" + "1" * 200_000, "of 200002 characters"),
        ("a: -0" + "7" * 64, "of 66 characters"),
        ("a: 1" + ":00" * 60_000, "of 180001 characters"),
        ("{0x" + "f" * 100 + " : 1}", "of 102 characters"),
        ("a: 1" + ":00" * 60_000 + ".0", "no usable YAML: int too large to convert to float"),
        ("a: 0b_", "no usable YAML"),
        ("a: [", "no usable YAML"),
        ("a: 1\n---\na: 2", "no usable YAML"),
        ("a: \x01", "no usable YAML"),
    ],
)
def test_yaml_that_is_no_description_of_ours_is_refused_in_one_line(text, reason):
    with pytest.raises(DocumentError, match=reason) as caught:
        parse_yaml(text)
    assert str(caught.value).isprintable()


def test_integers_of_64_characters_and_longer_texts_and_fractions_are_values():
    assert parse_yaml("0x" + "f" * 62) == 16**62 - 1
    assert parse_yaml("'" + "9" * 65 + "'") == parse_yaml('"' + "9" * 65 + '"') == "9" * 65
    assert parse_yaml("9" * 65 + ".5") == 1e65
    assert parse_yaml("0x" + "g" * 65) == "0x" + "g" * 65


def test_a_json_file_is_read_up_to_its_limit_and_no_further(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"a": [1, 2]}')
    assert read_json(path) == {"a": [1, 2]}
    with path.open("r+b") as file:
        file.truncate(400 << 20)
    tracemalloc.start()
    with pytest.raises(DocumentError, match="more than 16777216 bytes"):
        read_json(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * MAX_JSON_CHARACTERS
    with pytest.raises(DocumentError, match="No such file"):
        read_json(tmp_path / "none.json")


def test_a_file_past_the_limit_or_without_text_is_refused(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"#" * (MAX_YAML_BYTES + 1))
    with pytest.raises(DocumentError, match="more than 262144 bytes"):
        read_yaml(path)
    path.write_bytes(b"a: \xff")
    with pytest.raises(DocumentError, match="utf-8"):
        read_yaml(path)
    with pytest.raises(DocumentError, match="No such file"):
        read_yaml(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "no usable JSON"),
        ("[" * 60 + "]" * 60, "more than 50 levels"),
        ("9" * 5000, "no usable JSON: Exceeds the limit"),
        ('{"id": 1, "id": 2}', "key 'id' twice"),
        (b'{"a": "\xff"}', "no usable JSON"),
        ('{"a": 1}'.encode("utf-16"), "no usable JSON"),
        ('{"a": 1}'.encode("utf-32-be"), "no usable JSON"),
        ("", "no usable JSON"),
    ],
)
def test_json_that_cannot_be_used_is_refused(text, reason):
    with pytest.raises(DocumentError, match=reason):
        parse_json(text)


@pytest.mark.parametrize("text", ("[]", "null", "3", '"a"'))
def test_what_is_no_object_is_no_mapping(text):
    with pytest.raises(DocumentError, match="expected an object"):
        parse_mapping(text)
    assert parse_mapping('{"a": 1}') == {"a": 1}


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(PLAIN)
def test_json_comes_back_as_it_was(value):
    assert parse_json(json.dumps(value)) == value


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.text(max_size=200))
def test_any_text_is_a_document_or_refused(text):
    for parse in (parse_yaml, parse_json):
        try:
            parse(text)
        except DocumentError as error:
            assert str(error).isprintable()
