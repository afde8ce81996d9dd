"""What stands where a number, a text, a JSON or some bytes should stand."""

from typing import Any


class BadText(str):
    """Bytes that SQLite is to take for text, valid or not; kept as latin-1."""

    __slots__ = ()


NUMBERS: list[Any] = [0, 1, -1, 2, 7, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63), 0.5, -0.0, 1e300, float("inf"), 1e-320]
TEXTS: list[Any] = [
    "", "abc", "0", "-1", "1e999", "9" * 30, "x" * 100_000, "a\0b", "\x1b[31mred\x07", "<script>alert(1)</script>",
    "../../outside/victim.txt", "/etc/passwd", "..", ".", "\n", "‮evil", "nan", "=1+1", "'; DROP TABLE item; --",
    BadText("\xff"), BadText("\x00\xff"), BadText("ok\xed\xa0\x80"),
]  # fmt: skip
JSONS: list[Any] = [
    "{}", "[]", "null", "1", '"x"', "[" * 100_000, '{"a":' * 5_000, "1" * 5_000, '"\\ud800"', '{"a":"\\ud800"}', 
    "NaN", '{"a":Infinity}', '{"a":1e999}', '{"\\u0000":1}', '{"kind":"nope"}', '{"kind":[]}', '{"kind":null}', 
    '{"recall":"x"}', '{"recall":true}', '{"recall":NaN}', '{"recall":-1}',
    '{"unknown":1}', '{"memory_bytes":"x"}', '{"memory_bytes":0.5}',
    '{"latency_ms":[]}', '{"kind":"flat","kind":"sq8"}', '{"reason":5,"notes":7}', '{"recall":{"text":"x"}}',
    '{"recall":{"text":0.9}}', '{"recall":[1],"queries":2}', '{"recall":{"odour":1},"queries":{},"milliseconds":"x"}',
    '{"notes":[1,{"a":2}],"reason":["x"]}', '{"wish":[]}', '{"wish":{"kind":5}}', '{"a":{"b":{"c":[1,2,{"d":null}]}}}',
    '{"year":"' + "9" * 5_000 + '"}', '{"year":' + "9" * 5_000 + "}", '{"a\x1b[31m":"\x1b]0;x\x07"}', '{"a":1}' * 2,
]  # fmt: skip
WORDS: list[Any] = ["text", "image", "audio", "video", "odour", "Text", "content", "caption", "window 0.000 1.000"]
ROLES: list[Any] = [
    "content", "caption", "frame 1.000", "window 0.000 1.000", "passage 0 10", "window nan inf", "passage 10 1",
    "frame 1e308", "content 1", "frame", "window 1", "window a b", "frame 1.000 ", "passage -1 -2", "passage 1_0 2",
]  # fmt: skip
BLOBS: list[Any] = [
    b"",
    b"\0",
    b"\xff" * 32,
    b"/a\0b",
    b"relative",
    b"/" + b"d/" * 3_000,
    b"/x\xff",
    b"/\x1b[31m",
    bytes(100),
]
