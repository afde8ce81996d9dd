"""Metadata of one item: what is kept, what is left out, what is refused and why."""

import json
import math
import sqlite3
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.pipeline.tables.metadata import (
    Metadata,
    MetadataError,
    decode,
    encode,
    flatten,
    merged,
    read_sidecar,
    told,
)


def sidecar(entries: Any, **options: Any) -> Metadata:
    return read_sidecar(json.dumps(entries).encode(), **options)


# Beside an item.


def test_kinds_of_values() -> None:
    assert sidecar({"a": "x", "b": 1, "c": 2.5, "d": True, "e": None, "f": ["x", "y"], "g": "", "h": []}) == {
        "a": "x",
        "b": 1,
        "c": 2.5,
        "d": True,
        "f": ["x", "y"],
        "g": "",
        "h": [],
    }
    assert sidecar({}) == {}


def test_lists_become_lists_of_texts() -> None:
    assert sidecar({"a": ["x", 1, 2.5, True, None, ""]}) == {"a": ["x", "1", "2.5", "true", ""]}


def test_objects_are_flattened() -> None:
    assert sidecar({"exif": {"model": "X", "lens": {"f": 2.8}, "none": None}, "empty": {}}) == {
        "exif.model": "X",
        "exif.lens.f": 2.8,
    }


def test_of_equal_keys_the_last_counts() -> None:
    assert read_sidecar(b'{"a": 1, "a": 2, "b.c": 1, "b": {"c": 2}}') == {"a": 2, "b.c": 2}


def test_lists_of_objects_become_keys_with_lists() -> None:
    """As Google Takeout writes who is in a picture; and any other nesting."""
    assert sidecar({"people": [{"name": "Ann"}, {"name": "Bo"}]}) == {"people.name": ["Ann", "Bo"]}
    assert sidecar({"people": [{"name": "Ann", "age": 7}, {"name": "Bo", "role": {"in": "team"}}, "Cy", None]}) == {
        "people.name": ["Ann", "Bo"],
        "people.age": ["7"],
        "people.role.in": ["team"],
        "people": ["Cy"],
    }
    assert sidecar({"a": [[1, 2], [3], 4, [[5]]], "b": [{"t": ["x", "y"]}, {"t": ["z"]}], "c": [[], {}]}) == {
        "a": ["1", "2", "3", "4", "5"],
        "b.t": ["x", "y", "z"],
    }
    assert sidecar({"faces": [{"lat": 48.1, "name": "x"}]}) == {"faces.name": ["x"]}  # still private


def test_what_cannot_be_kept_costs_its_own_key_only() -> None:
    left_out: list[str] = []
    entries = {"a": math.nan, "b": 1, "c": "v" * 10_001, "": 2, "d": {"": 1, "e": "x"}, "k" * 201: 1, "f": [math.inf]}
    assert sidecar(entries, left_out=left_out) == {"b": 1, "d.e": "x"}
    assert left_out == [
        "'a' is nan, which is not a number that JSON has",
        "'c' has 10,001 characters, at most 10,000 are read",
        "a key is empty",
        "a key is empty, within 'd.'",
        f"the key '{'k' * 40}…' has 201 characters, at most 200 are read",
        "'f' is inf, which is not a number that JSON has",
    ]
    assert told(left_out[:1]) == f"of the metadata was left out: {left_out[0]}"
    assert told(left_out) == f"of the metadata was left out: {'; '.join(left_out[:3])}; and 3 more"
    left_out.clear()
    assert sidecar({f"k{n}": n for n in range(250)}, left_out=left_out) == {f"k{n}": n for n in range(200)}
    assert left_out == ["250 keys, at most 200 are read"]


def test_a_sidecar_comes_before_tables_and_those_before_the_file() -> None:
    left_out: list[str] = []
    own, tabled = encode({"a": 1, "b": 1, "c": 1}), encode({"b": 2, "c": 2})
    assert merged(own, tabled, {"c": 3}, left_out=left_out) == encode({"a": 1, "b": 2, "c": 3})
    assert merged(own, None, {}, left_out=left_out) == own
    assert merged("{}", tabled, {}, left_out=left_out) == merged(None, tabled, {}, left_out=left_out) == tabled
    assert merged(None, None, {}, left_out=left_out) is None
    assert merged("{}", None, {}, left_out=left_out) is None
    assert left_out == []
    many = encode({f"own{n}": n for n in range(150)})
    both = merged(many, None, {f"k{n}": n for n in range(100)}, left_out=left_out)
    assert both is not None
    kept = decode(both)
    assert len(kept) == 200
    assert {f"k{n}" for n in range(100)} < kept.keys()
    assert left_out == ["250 keys, at most 200 are read"]


def test_text_is_what_sqlite_can_hold() -> None:
    read = read_sidecar(rb'{"a\u0000": "x\u0000y\u0000", "b": "\ud800", "c": "\ud83d\ude00", "\udfff": ["\udc80"]}')
    assert read == {"a": "xy", "b": "\ufffd", "c": "\U0001f600", "\ufffd": ["\ufffd"]}
    with sqlite3.connect(":memory:") as db:
        assert decode(db.execute("SELECT ?", (encode(read),)).fetchone()[0]) == read
    db.close()


def test_byte_order_mark() -> None:
    assert read_sidecar(b'\xef\xbb\xbf {"a": 1}\r\n') == {"a": 1}


def test_numbers_beyond_64_bits_remain_text() -> None:
    big = 2**63
    assert sidecar({"a": big - 1, "b": -big, "c": big, "d": -big - 1, "e": 10**300}) == {
        "a": big - 1,
        "b": -big,
        "c": str(big),
        "d": str(-big - 1),
        "e": str(10**300),
    }


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"not JSON: Expecting value \(column 1\)"),
        (b'{"a": 1', r"not JSON: Expecting ',' delimiter \(column 8\)"),
        (b'{\n"a": }', r"not JSON: Expecting value \(line 2, column 6\)"),
        (b"{'a': 1}", "not JSON: Expecting property name"),
        (b"[1]", r'not a JSON object: write \{"key": value\}'),
        (b'"text"', "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"a": "\xe9"}', r"not UTF-8 \(byte 7\): save the metadata as UTF-8"),
        (b'\xff\xfe{"a": 1}', r"not UTF-8 \(byte 0\)"),
        (b'{"a": NaN}', "'a' is nan, which is not a number that JSON has"),
        (b'{"a": [Infinity]}', "'a' is inf, which is not a number that JSON has"),
        (b'{"a": -Infinity}', "'a' is -inf, which is not a number"),
        (b'{"a": 1e400}', "'a' is inf, which is not a number"),
        (b'{"a": ' + b"[" * 22 + b"]" * 22 + b"}", "'a' is nested too deeply: more than 20 lists in one another"),
        (b'{"": 1}', "^a key is empty$"),
        (b'{"a": {"\\u0000": 1}}', "^a key is empty, within 'a.'$"),
        (b"[" * 60_000, "nested too deeply|not JSON"),
        (b'{"a":' * 13_000, "nested too deeply|not JSON"),
        (b'{"a":' * 150 + b"1" + b"}" * 150, r"the key 'a\.a\..*…' has 201 characters, at most 200"),
    ],
)
def test_what_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(MetadataError, match=message):
        read_sidecar(data)


def test_limits() -> None:
    assert len(sidecar({f"k{n}": n for n in range(200)})) == 200
    with pytest.raises(MetadataError, match="201 keys, at most 200 are read"):
        sidecar({f"k{n}": n for n in range(201)})
    assert sidecar({"k" * 200: "v" * 10_000, "l": ["é" * 5_000, "w" * 5_000]})["k" * 200] == "v" * 10_000
    with pytest.raises(MetadataError, match=r"the key 'k+…' has 201 characters, at most 200"):
        sidecar({"k" * 201: 1})
    with pytest.raises(MetadataError, match="'k' has 10,001 characters, at most 10,000"):
        sidecar({"k": "v" * 10_001})
    with pytest.raises(MetadataError, match="'k' has 10,001 characters, at most 10,000"):
        sidecar({"k": ["v" * 5_000, "w" * 5_001]})
    assert read_sidecar(b'{"a": 1}'.ljust(64 * 1024)) == {"a": 1}
    with pytest.raises(MetadataError, match=r"metadata of 65,537 bytes, at most 65,536 are read"):
        read_sidecar(b'{"a": 1}'.ljust(64 * 1024 + 1))


def test_python_values_that_json_has_not() -> None:
    assert flatten({"a": ("x", 1), "b": {"c": 2**70}}) == {"a": ["x", "1"], "b.c": str(2**70)}
    with pytest.raises(MetadataError, match="'a' is nan, which is not a number that JSON has"):
        flatten({"a": math.nan})
    with pytest.raises(MetadataError, match="'a' is inf, which is not"):
        flatten({"a": [math.inf]})
    with pytest.raises(MetadataError, match="'a' is a bytes, not a text, a number"):
        flatten({"a": b"x"})
    with pytest.raises(MetadataError, match="the key 1 is not a text"):
        flatten({1: "x"})  # type: ignore[dict-item]
    with pytest.raises(MetadataError, match="'a' is a number of more than 1,000 bits"):
        flatten({"a": 10**5000})


# Positions.

PRIVATE: dict[str, Any] = {
    "gps": "48.1 11.6",
    "GPSLatitude": 48.1,
    "gps_position": "x",
    "exif.GPSLongitudeRef": "E",
    "EXIF:GPSAltitude": 520,
    "Composite:GPSPosition": "48 deg 8' N",
    "exif GPS date": "x",
    "latitude": 48.1,
    "Longitude": 11.6,
    "geoData.latitude": 48.1,
    "photoLatitude": 48.1,
    "lat": 48.1,
    "LON": 11.6,
    "lng": 11.6,
    "place.lat": 48.1,
    "photo_lat": 48.1,
    "lat-deg": 48,
    "latlng": "48.1,11.6",
    "coordinates": "x",
    "location.city": "x",
    "Location.x": 1,
    "exif.location.name": "x",
    "location": "48.1374, 11.5755",
    "com.apple.location": "+48.8566+002.3522/",
    "my location": "48°8'N 11°34'E",
}
PUBLIC: dict[str, Any] = {
    "place": "München",
    "location": "München",
    "location ": "221b Baker Street",
    "venue_location": "12 Main Street",
    "locations": "48.1 11.6",
    "platform": "x",
    "flat": 1,
    "latency": 1,
    "lonely": 1,
    "translation": "x",
    "relocation.year": 1,
    "altitude": 520,
    "long": "x",
    "location_count": 3,
    "album.location": 7,
    "my.location": "1 2 " * 2_499 + ".",
}


@pytest.mark.parametrize(("key", "value"), PRIVATE.items())
def test_positions_are_stored_only_if_asked_for(key: str, value: Any) -> None:
    assert sidecar({key: value, "other": 1}) == {"other": 1}
    assert sidecar({key: value}, positions=True) == {key: value}


@pytest.mark.parametrize(("key", "value"), PUBLIC.items())
def test_what_is_no_position_is_stored(key: str, value: Any) -> None:
    assert sidecar({key: value}) == {key: value}


def test_positions_in_parts_and_lists() -> None:
    nested = {"location": {"type": "Point", "coordinates": [11.6, 48.1]}, "exif": {"gps": {"lat": 1}, "iso": 100}}
    assert sidecar(nested) == {"exif.iso": 100}
    assert sidecar({"location": [48.1374, 11.5755]}) == {}
    assert sidecar({"location": ["Paris", "Rome"]}) == {"location": ["Paris", "Rome"]}
    assert sidecar({"gps": [[1, 2], [3, 4]]}) == {}  # what is left out need not be of the right form
    assert sidecar(nested, positions=True)["location.coordinates"] == ["11.6", "48.1"]


# Stored.

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
values = st.one_of(
    texts,
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.lists(texts, max_size=4),
)


@settings(max_examples=100)
@given(st.dictionaries(texts.filter(bool), values, max_size=6))
def test_what_is_stored_is_read_again(metadata: Metadata) -> None:
    stored = encode(metadata)
    assert decode(stored) == metadata
    assert [type(value) for value in decode(stored).values()] == [type(metadata[key]) for key in decode(stored)]
    assert encode(dict(reversed(metadata.items()))) == stored
    with sqlite3.connect(":memory:") as db:
        rows = db.execute("SELECT key, atom FROM json_each(?) WHERE type NOT IN ('array', 'true', 'false')", (stored,))
        for key, atom in rows:
            value = metadata[key]
            assert atom == (pytest.approx(value, rel=1e-15) if isinstance(value, float) else value)
    db.close()


def test_stored_form() -> None:
    assert encode({"b": 1, "a": ["ü", "x"], "c": True, "d": 2.5}) == '{"a":["ü","x"],"b":1,"c":true,"d":2.5}'
    assert encode({}) == "{}"
    assert decode('{"gps": "1 2"}') == {"gps": "1 2"}
    with pytest.raises(MetadataError, match="metadata cannot be stored: Out of range float values"):
        encode({"a": math.nan})
    with pytest.raises(MetadataError, match="not JSON"):
        decode("{")
