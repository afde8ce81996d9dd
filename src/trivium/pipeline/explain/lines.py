"""Explanations as words for the terminal and the page, and as JSON."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a search that explains nothing does not import what explains
    from trivium.pipeline.explain.drops import Explanation, Mark

MARKS_SHOWN = 3
LEAST_SHARE = 0.1  # of the largest drop: less is not worth a word
DIGITS = 5  # of JSON's drops


def lines_of(explanation: "Explanation") -> list[str]:
    """Say what held up a hit: of the query, then of the item, the largest drop first."""
    if explanation.reason is not None:
        return [f"not explained: {explanation.reason}"]
    lines = []
    if len(explanation.query) > 1 and (query := _strongest(explanation.query)):
        lines.append("query: " + ", ".join(f"{_named(mark)} {mark.drop:+.2f}" for mark in query))
    if words := _strongest(explanation.words):
        lines.append("words: " + ", ".join(f"{_named(mark)} {mark.drop:+.2f}" for mark in words))
    if seconds := _strongest(explanation.seconds):
        lines.append("seconds: " + ", ".join(f"{_span(mark)} {mark.drop:+.2f}" for mark in seconds))
    return lines


def explanation_json(explanation: "Explanation") -> dict[str, Any]:
    """Return an explanation as JSON has it: what it does not have is left out."""
    if explanation.reason is not None:
        return {"reason": explanation.reason}
    told: dict[str, Any] = {"score": round(explanation.score, DIGITS)}
    told["query"] = [{"part": mark.part, **_mark(mark)} for mark in explanation.query]
    if explanation.words:
        told["words"] = [_mark(mark) for mark in explanation.words]
    if explanation.seconds:
        told["seconds"] = [_mark(mark) for mark in explanation.seconds]
    if explanation.regions is not None:
        told["regions"] = [[round(float(drop), DIGITS) for drop in row] for row in explanation.regions]
    if explanation.overlay is not None:
        told["overlay"] = explanation.overlay
    return told


def _mark(mark: "Mark") -> dict[str, Any]:
    text = {} if mark.text is None else {"text": mark.text}
    return {"start": mark.start, "stop": mark.stop, **text, "drop": round(mark.drop, DIGITS)}


def _strongest(marks: "Iterable[Mark]") -> "list[Mark]":
    ordered = sorted(marks, key=lambda mark: -mark.drop)[:MARKS_SHOWN]
    return [mark for mark in ordered if mark.drop > 0 and mark.drop >= LEAST_SHARE * ordered[0].drop]


def _named(mark: "Mark") -> str:
    return f"part {mark.part + 1}" if mark.text is None else " ".join(mark.text.split())


def _span(mark: "Mark") -> str:
    return f"{mark.start:.1f}" if mark.stop == mark.start else f"{mark.start:.1f}–{mark.stop:.1f}"
