"""Metadata of one item: from a JSON file beside it, from a table for many, and from the file itself.

An item's metadata are flat: keys with a text, a number, true or false, or a list of texts. Nested objects become keys
with dots (``exif.model``), and so does a list of objects: ``{"people": [{"name": "Ann"}, {"name": "Bo"}]}`` is
``people.name`` with the list Ann, Bo. Lists within lists become one. What cannot be kept costs its own key only.
Where a picture was taken is private: positions are not stored unless asked for.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

from trivium.pipeline.tables.positions import is_position

Metadata: TypeAlias = dict[str, str | int | float | bool | list[str]]

MAX_BYTES = 64 * 1024  # of one item's metadata
MAX_KEYS = 200
MAX_KEY_LENGTH = 200  # characters
MAX_VALUE_LENGTH = 10_000  # characters; of a list, all entries together
MAX_LIST_DEPTH = 20  # lists within lists; of objects the keys' length bounds it
MAX_TOLD = 3  # keys that were left out are named, the others counted


class MetadataError(ValueError):
    """Metadata that cannot be used; the message is a plain sentence for their owner."""


def read_sidecar(data: bytes, *, positions: bool = False, left_out: list[str] | None = None) -> Metadata:
    """Read the content of a JSON file that lies beside an item.

    Args:
        data: JSON with one object, in UTF-8.
        positions: Keep where the item was made, as far as a key's name tells.
        left_out: As of `flatten`.

    Raises:
        MetadataError: If it is too large, no JSON, or not of the form that metadata have.
    """
    if len(data) > MAX_BYTES:
        raise MetadataError(f"metadata of {len(data):,} bytes, at most {MAX_BYTES:,} are read")
    try:
        return flatten(json_object(data.decode("utf-8-sig")), positions=positions, left_out=left_out)
    except UnicodeDecodeError as error:
        raise MetadataError(f"not UTF-8 (byte {error.start:,}): save the metadata as UTF-8") from error


def flatten(entries: Mapping[str, object], *, positions: bool = False, left_out: list[str] | None = None) -> Metadata:
    """Make metadata of anything like a JSON object: null is dropped, of equal keys the last counts.

    Args:
        entries: Any.
        positions: Keep where the item was made, as far as a key's name tells.
        left_out: Gets a sentence for each key that cannot be kept; all others are kept.

    Raises:
        MetadataError: If a key cannot be kept, and there is no ``left_out``.
    """

    def refuse(reason: str) -> None:
        if left_out is None:
            raise MetadataError(reason)
        left_out.append(reason)

    metadata: Metadata = {}
    more = 0
    for key, value in _leaves("", entries, refuse):
        if not positions and is_position(key, value):
            continue
        try:
            kept = _kept(key, value)
        except MetadataError as error:
            refuse(str(error))
            continue
        if kept is None:
            continue
        if len(metadata) < MAX_KEYS or key in metadata:
            metadata[key] = kept
        else:
            more += 1
    if more:
        refuse(f"{MAX_KEYS + more:,} keys, at most {MAX_KEYS} are read")
    return metadata


def merged(own: str | None, tabled: str | None, sidecar: Metadata, *, left_out: list[str]) -> str | None:
    """Put together what a file says of itself (JSON), what tables say (JSON) and what a sidecar says: the last wins.

    Args:
        own: None if it is not known.
        tabled: None if no table names the file.
        sidecar: Empty if there is none.
        left_out: As of `flatten`: together they may have too many keys.

    Returns:
        JSON; None if nobody says anything.
    """
    if not sidecar and own in (None, "{}"):
        return tabled
    layers = [sidecar, *(decode(layer) for layer in (tabled, own) if layer)]
    together = {key: value for layer in reversed(layers) for key, value in layer.items()}
    first = [key for layer in layers for key in layer]  # what wins also stays, where there are too many
    return encode(flatten({key: together[key] for key in dict.fromkeys(first)}, positions=True, left_out=left_out))


def told(left_out: Sequence[str]) -> str:
    """Say in one line which keys could not be kept."""
    more = f"; and {len(left_out) - MAX_TOLD:,} more" if len(left_out) > MAX_TOLD else ""
    return f"of the metadata was left out: {'; '.join(left_out[:MAX_TOLD])}{more}"


def encode(metadata: Metadata) -> str:
    """Return the JSON that is stored: the same for equal metadata.

    Raises:
        MetadataError: If a number is NaN or infinite.
    """
    try:
        return _ENCODER.encode(metadata)
    except ValueError as error:
        raise MetadataError(f"metadata cannot be stored: {error}") from error


def decode(text: str) -> Metadata:
    """Read what `encode` wrote.

    Raises:
        MetadataError: If it did not.
    """
    return flatten(json_object(text), positions=True)


def json_object(text: str) -> dict[str, object]:
    """Read one object; numbers may be NaN or infinite.

    Raises:
        MetadataError: If it is none.
    """
    try:
        read = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if "\n" in text.strip() else ""
        raise MetadataError(f"not JSON: {error.msg} ({line}column {error.colno})") from error
    except RecursionError as error:
        raise MetadataError("nested too deeply") from error
    if not isinstance(read, dict):
        raise MetadataError('not a JSON object: write {"key": value}')
    return read


def whole_number(digits: str) -> int | str:
    """Numbers of more than 64 bits remain text: they are names, and SQLite would round them."""
    if len(digits) > 20:
        return digits
    number = int(digits)
    return number if -(2**63) <= number < 2**63 else digits


_ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_DECODER = json.JSONDecoder(parse_int=whole_number)


def _leaves(prefix: str, entries: Mapping[str, object], refuse: Callable[[str], None]) -> Iterator[tuple[str, object]]:
    for name, value in entries.items():
        try:
            key = _key(prefix, name)
        except MetadataError as error:
            refuse(str(error))
            continue
        if isinstance(value, str | int | float):  # much the fastest to ask
            yield key, value
        elif isinstance(value, Mapping):
            yield from _leaves(f"{key}.", value, refuse)
        elif isinstance(value, list | tuple) and any(isinstance(entry, list | tuple | Mapping) for entry in value):
            yield from _columns(key, value, refuse, depth=1)
        else:
            yield key, value


def _columns(
    key: str, entries: Sequence[object], refuse: Callable[[str], None], *, depth: int
) -> Iterator[tuple[str, object]]:
    """Yield what objects in a list say under each of their keys, in order, and what stands in it beside them."""
    if depth > MAX_LIST_DEPTH:
        refuse(f"'{key}' is nested too deeply: more than {MAX_LIST_DEPTH} lists in one another")
        return
    found: dict[str, list[object]] = {}
    for entry in entries:
        if isinstance(entry, Mapping):
            leaves = _leaves(f"{key}.", entry, refuse)
        elif isinstance(entry, list | tuple):
            leaves = _columns(key, entry, refuse, depth=depth + 1)
        else:
            leaves = iter([(key, entry)])
        for name, leaf in leaves:
            found.setdefault(name, []).extend(leaf if isinstance(leaf, list | tuple) else [leaf])
    yield from found.items()


def _key(prefix: str, name: object) -> str:
    if not isinstance(name, str):
        raise MetadataError(f"the key {name!r} is not a text")
    key = prefix + _text(name)
    if key == prefix:
        raise MetadataError(f"a key is empty{f', within {prefix!r}' if prefix else ''}")
    if len(key) > MAX_KEY_LENGTH:  # this also bounds how deep objects are nested
        raise MetadataError(f"the key '{key[:40]}…' has {len(key):,} characters, at most {MAX_KEY_LENGTH} are read")
    return key


def _kept(key: str, value: object) -> str | int | float | bool | list[str] | None:
    if isinstance(value, str):
        text = _text(value)
        _check_length(key, len(text))
        return text
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if value.bit_length() > 1_000:
            raise MetadataError(f"'{key}' is a number of more than 1,000 bits")
        return whole_number(str(value))
    if isinstance(value, float):
        if not math.isfinite(value):
            raise MetadataError(f"'{key}' is {value}, which is not a number that JSON has")
        return value
    if isinstance(value, list | tuple):
        texts = [_entry(key, entry) for entry in value if entry is not None]
        _check_length(key, sum(map(len, texts)))
        return texts
    raise MetadataError(f"'{key}' is a {type(value).__name__}, not a text, a number, true, false or a list of these")


def _entry(key: str, entry: object) -> str:
    kept = _kept(key, entry)
    return kept if isinstance(kept, str) else json.dumps(kept)


def _check_length(key: str, length: int) -> None:
    if length > MAX_VALUE_LENGTH:
        raise MetadataError(f"'{key}' has {length:,} characters, at most {MAX_VALUE_LENGTH:,} are read")


_NO_TEXT = re.compile("[\ud800-\udfff]")


def _text(text: str) -> str:
    """Leave what SQLite can hold and compare as a whole: no NUL, with which cameras fill up, no half characters."""
    text = text.replace("\0", "")
    return text if text.isascii() else _NO_TEXT.sub("\ufffd", text)
