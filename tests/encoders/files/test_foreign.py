"""Files of a stranger's folder: bounded, regular, inside; JSON of any kind; tensors whose header lies."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from safetensors.torch import save_file

from trivium.encoders.files.foreign import (
    ForeignFileError,
    is_plain_name,
    open_foreign,
    read_foreign,
    read_foreign_json,
    shown,
)
from trivium.encoders.files.tensors import open_tensors, read_tensors


@pytest.mark.parametrize("name", ["a", "a.b", "...", " x", "ä.json"])
def test_plain_names(name: str) -> None:
    assert is_plain_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/", "a/", "../a", "a\\b", "a\0b", "a\nb", "a\x1b", 3, None, []]
)
def test_names_that_lead_elsewhere(name: object) -> None:
    assert not is_plain_name(name)


def test_links_may_lead_within_their_folder_only(tmp_path: Path) -> None:
    inside, outside = tmp_path / "space", tmp_path / "secret"
    inside.mkdir()
    outside.write_text("{}")
    (inside / "real").write_text('{"a": 1}')
    (inside / "link").symlink_to("real")
    (inside / "out").symlink_to(outside)
    (inside / "up").symlink_to("../secret")
    (inside / "loop").symlink_to("loop")
    (tmp_path / "door").symlink_to(inside)
    assert read_foreign_json(inside / "link") == read_foreign_json(tmp_path / "door" / "real") == {"a": 1}
    for name in ("out", "up"):
        with pytest.raises(
            ForeignFileError, match=f"{name} is a link that leads out of its folder: copy the file there"
        ):
            read_foreign(inside / name, max_bytes=100)
    for name in ("loop", "nothing"):
        with pytest.raises(ForeignFileError, match=f"{name} cannot be read: "):
            read_foreign(inside / name, max_bytes=100)


def test_what_is_no_file_of_a_size(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "large").write_bytes(b"x" * 101)
    for name, message in (
        ("pipe", "pipe is not a regular file"),
        ("folder", "folder is not a regular file"),
        ("large", "large is too large: it has 101 bytes, at most 100 are read"),
        ("a\0b", r"is no name of a file"),
    ):
        with pytest.raises(ForeignFileError, match=message):
            read_foreign(tmp_path / name, max_bytes=100)


def test_a_file_that_changes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    real = os.fstat

    def smaller(descriptor: int) -> os.stat_result:
        status = list(real(descriptor))
        status[6] = 3
        return os.stat_result(status)

    monkeypatch.setattr(os, "fstat", smaller)
    with pytest.raises(ForeignFileError, match="a changed while it was being read"):
        read_foreign(tmp_path / "a", max_bytes=100)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON: Expecting value"),
        (b"{", "is not JSON"),
        (b"\xff{}", r"it is not UTF-8 \(byte 0\)"),
        (b"[1]", "must hold an object, it holds list"),
        (b'"a"', "must hold an object, it holds 'a'"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"a":' * 100 + b"1" + b"}" * 100, "nested too deeply: more than 64 lists and objects"),
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' is there twice"),
        (b'{"a": NaN}', "NaN is not a number that JSON has"),
        (b'{"a": -Infinity}', "-Infinity is not a number"),
        (b'{"a": 1e999}', "the number 1e999 is too large"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "the number 9999.* is too large"),
        (b"{}" + b" " * 2_000, "is too large: it has 2,002 bytes"),
    ],
)
def test_json_that_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    limit = 1_000 if message.startswith("is too large") else 1 << 20
    with pytest.raises(ForeignFileError, match=message):
        read_foreign_json(tmp_path / "a.json", max_bytes=limit)


def test_json_that_is_read(tmp_path: Path) -> None:
    told = {"a": [1, 2.5, None, True, "ä"], "b": {"c": {}}, "most": 10**30}
    (tmp_path / "a.json").write_text(json.dumps(told))
    assert read_foreign_json(tmp_path / "a.json") == told
    (tmp_path / "b.json").write_text('{"score": NaN}')
    assert np.isnan(read_foreign_json(tmp_path / "b.json", constants=True)["score"])


VALUES: list[object] = [[[[]]], {"a": 1}, None, 3]


def test_values_are_shown_on_one_short_line() -> None:
    assert shown("a\x1b[31m\nb") == r"'a\x1b[31m\nb'"
    assert shown("x" * 1_000_000) == "'" + "x" * 59 + "…"
    assert [shown(value) for value in VALUES] == ["list", "dict", "None", "3"]


# Tensors.


def write_tensors(path: Path, header: Any, body: bytes = b"", *, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)
    return path


def entry(dtype: object = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_tensors_are_as_safetensors_has_them(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    tensors = {
        kind: (torch.randn(3, 4, generator=random) * 50).to(kind)
        for kind in (torch.float64, torch.float32, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8)
    } | {torch.bool: torch.tensor([True, False]), torch.uint8: torch.zeros(0, 3, dtype=torch.uint8)}
    given = {str(kind): tensor for kind, tensor in tensors.items()} | {"one": torch.tensor(2.5)}
    halves = torch.randn(5, generator=random).bfloat16()
    save_file({**given, "halves": halves}, tmp_path / "a.safetensors")
    found = read_tensors(tmp_path / "a.safetensors", max_bytes=1 << 20)
    assert found.keys() == {*given, "halves"}
    for name, tensor in given.items():
        assert found[name].dtype == tensor.numpy().dtype
        assert_array_equal(found[name], tensor.numpy())
    assert_array_equal(found["halves"], halves.float().numpy())


@pytest.mark.parametrize(
    ("header", "body", "message"),
    [
        (
            {"a": entry("F8_E4M3", (4,), (0, 4))},
            b"1234",
            "tensor 'a' is of type 'F8_E4M3', which is not read here; known",
        ),
        ({"a": entry(["F32"])}, b"1234", "is of type list, which is not read here"),
        ({"a": entry(shape=(2,))}, b"1234", r"tensor 'a' has 4 bytes, its shape \(2,\) needs 8"),
        ({"a": entry(shape=(-1,))}, b"1234", "has a shape that is none"),
        ({"a": entry(shape=(True,))}, b"1234", "has a shape that is none"),
        ({"a": entry(shape=[1] * 9)}, b"1234", "has a shape that is none"),
        ({"a": entry(shape=(0, 1 << 40, 1 << 40), offsets=(0, 0))}, b"", "has a shape that is none"),
        ({"a": entry(shape=(1 << 50,), offsets=(0, 1 << 52))}, b"1234", "has a shape that is none"),
        ({"a": entry(offsets=(0, 8))}, b"1234", "lies outside of the file"),
        ({"a": entry(offsets=(4, 0))}, b"1234", "lies outside of the file"),
        ({"a": entry(offsets=(0,))}, b"1234", "lies outside of the file"),
        ({"a": entry(), "b": entry()}, b"1234", "the numbers of tensor 'b' do not follow those before them"),
        ({"a": entry(offsets=(4, 8))}, b"12345678", "the numbers of tensor 'a' do not follow"),
        ({"a": entry()}, b"12345", "its tensors take .*: it is damaged or cut off"),
        ({"a": 3}, b"", "tensor 'a' must have dtype, shape and data_offsets"),
        ({"a": {**entry(), "more": 1}}, b"1234", "must have dtype, shape and data_offsets"),
        (b"[]", b"", "must hold an object"),
        (b"[" * 100_000, b"", "is nested too deeply"),
    ],
)
def test_headers_that_lie(tmp_path: Path, header: Any, body: bytes, message: str) -> None:
    path = write_tensors(tmp_path / "a.safetensors", header, body)
    with pytest.raises(ForeignFileError, match=message):
        read_tensors(path, max_bytes=1 << 20)


@pytest.mark.parametrize("length", [0, 3, 100, 1 << 30, 1 << 63])
def test_headers_of_another_length(tmp_path: Path, length: int) -> None:
    path = write_tensors(tmp_path / "a.safetensors", {"a": entry()}, b"1234", length=length)
    with pytest.raises(ForeignFileError, match=r"a\.safetensors"):
        read_tensors(path, max_bytes=1 << 20)
    path.write_bytes(b"12")
    with pytest.raises(ForeignFileError, match="is no safetensors file: a header of"):
        read_tensors(path, max_bytes=1 << 20)


def test_a_sparse_file_costs_nothing(tmp_path: Path) -> None:
    """8 GB that take no room on the disk; and nothing is read before it is known what there should be."""
    path = write_tensors(tmp_path / "a.safetensors", {"a": entry(shape=(2 << 30,), offsets=(0, 8 << 30))})
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + (8 << 30))
    with pytest.raises(ForeignFileError, match=r"is too large: it has 8,589,934,\d+ bytes, at most 536,870,912"):
        read_tensors(path, max_bytes=512 << 20)
    with open_tensors(path, max_bytes=16 << 30) as file_of_tensors:
        assert file_of_tensors.shapes == {"a": (2 << 30,)}
    with open_foreign(path, max_bytes=16 << 30) as opened:
        assert opened.read(8) != b""
