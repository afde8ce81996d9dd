"""A projection head, number by number."""

import math
from collections.abc import Mapping
from typing import Any


def vector(x: Any, t: Mapping[str, Any]) -> list[float]:
    columns = zip(x, t["mean"], t["scale"], strict=True)
    standard = [max(-6.0, min(6.0, (float(v) - float(mean)) / float(scale))) for v, mean, scale in columns]
    whole: list[float] = []
    for member in range(len(t["linear.weight"])):
        hidden = [max(0.0, h) for h in _affine(standard, t["hidden.weight"][member], t["hidden.bias"][member])]
        linear = _affine(standard, t["linear.weight"][member], t["linear.bias"][member])
        added = _affine(hidden, t["out.weight"][member], [0.0] * len(linear))
        whole += _unit([a + b for a, b in zip(linear, added, strict=True)])
    return _unit([v - float(c) for v, c in zip(_unit(whole), t["centre"], strict=True)])


def _affine(x: list[float], weight: Any, bias: Any) -> list[float]:
    return [
        float(b) + sum(v * float(row[place]) for v, row in zip(x, weight, strict=True)) for place, b in enumerate(bias)
    ]


def _unit(v: list[float]) -> list[float]:
    length = math.sqrt(sum(x * x for x in v))
    return [x / length for x in v]
