"""What was found, for programs (JSON) and for people (Markdown, the terminal)."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from trivium.encoders.base import Space
from trivium.encoders.files.writing import make_folder, write_file
from trivium.pipeline.escaping import code, markdown_table, plain, printable, text_table
from trivium.pipeline.evaluation.calibration import Reliability
from trivium.pipeline.evaluation.recall import Evaluation, Pair
from trivium.pipeline.evaluation.zero_shot import ZeroShot
from trivium.pipeline.tables.pairs import RefusedRow

REFUSED_SHOWN = 20  # JSON has all
CLASSES_SHOWN = 100  # in the terminal
Shown: TypeAlias = tuple[str, list[str], list[list[str]]]  # title (none of the first), header, rows


def evaluation_json(found: Evaluation) -> dict[str, Any]:
    """Return an evaluation as JSON has it."""
    told: dict[str, Any] = {"gallery": dict(found.galleries), "recall": {}}
    for pair, figures in found.recall.items():
        told["recall"][_arrow(pair)] = {
            **{f"R@{k}": share for k, share in figures.at.items()},
            "MRR": figures.mrr,
            "median_rank": figures.median_rank,
            "queries": figures.queries,
            "gallery": figures.gallery,
            "interval": {name: list(interval) for name, interval in figures.interval.items()},
        }
    if found.ndcg:
        told["ndcg"] = {
            _arrow(pair): {
                "nDCG@10": figures.at_10,
                "queries": figures.queries,
                "gallery": figures.gallery,
                "interval": {"nDCG@10": list(figures.interval)},
            }
            for pair, figures in found.ndcg.items()
        }
    if found.calibration:
        told["calibration"] = {
            _arrow(pair): {name: _reliability_json(curve) for name, curve in curves.items()}
            for pair, curves in found.calibration.items()
        }
    return {**told, **_about(found), "rows": found.rows, "seed": found.seed}


def zero_shot_json(found: ZeroShot) -> dict[str, Any]:
    """Return what was named as JSON has it."""
    return {
        "accuracy": found.accuracy,
        "interval": list(found.interval),
        "balanced_accuracy": found.balanced_accuracy,
        "per_class": dict(found.per_class),
        "confusion": {"labels": list(found.labels), "matrix": found.matrix.tolist()},
        "prompts": list(found.templates),
        "modality": found.modality,
        "items": found.items,
        "classes": len(found.labels),
        "chance": 1 / len(found.labels),
        **_about(found),
    }


def evaluation_markdown(found: Evaluation, *, picture: str | None = None) -> str:
    """Return an evaluation as a page of Markdown; ``picture`` is a file beside it."""
    lines = [f"# {plain(found.space.name)} on {plain(found.table.name)}", ""]
    if picture is not None:
        lines += [f"![recall]({picture})", ""]
    for title, header, rows in _tables(found):
        lines += [*([title, ""] if title else []), *markdown_table(header, rows), ""]
    lines += [*_bullets(found), *_refused_lines(found.refused)]
    return "\n".join(lines) + "\n"


def zero_shot_markdown(found: ZeroShot, *, picture: str | None = None) -> str:
    """Return what was named as a page of Markdown; ``picture`` is a file beside it."""
    lines = [f"# {plain(found.space.name)} names {found.modality} of {plain(found.table.name)}", ""]
    lines += [f"**{_accuracy(found)}**", ""]
    if picture is not None:
        lines += [f"![confusion]({picture})", ""]
    lines += [*markdown_table(*_class_rows(found)), "", *_bullets(found)]
    lines += [f"- prompts: {', '.join(map(code, found.templates))}"]
    lines += _refused_lines(found.refused)
    return "\n".join(lines) + "\n"


def evaluation_text(found: Evaluation) -> str:
    """Return an evaluation as lines for the terminal."""
    lines = [line for _, header, rows in _tables(found) for line in (*text_table(header, rows), "")]
    return "\n".join([*lines, *_facts(found), *_refused_text(found.refused)])


def zero_shot_text(found: ZeroShot) -> str:
    """Return what was named as lines for the terminal."""
    header, rows = _class_rows(found)
    lines = [_accuracy(found), "", *text_table(header, rows[:CLASSES_SHOWN])]
    if len(rows) > CLASSES_SHOWN:
        lines.append(f"and {len(rows) - CLASSES_SHOWN:,} more (--json lists all)")
    prompts = f"prompts     {', '.join(map(printable, found.templates))}"
    return "\n".join([*lines, "", *_facts(found), prompts, *_refused_text(found.refused)])


def write_report(folder: Path, name: str, told: Mapping[str, Any], markdown: str) -> None:
    """Write NAME.json and NAME.md, for their owner alone, into a folder, which is made if it is not there."""
    make_folder(folder)
    text = json.dumps(told, indent=1, ensure_ascii=False)
    # A file name that is not UTF-8 has surrogates, which only escapes can hold.
    text = text if _is_plain(text) else json.dumps(told, indent=1)
    write_file(folder / f"{name}.json", text + "\n", own_folder=True)
    write_file(folder / f"{name}.md", markdown, own_folder=True)


def _tables(found: Evaluation) -> list[Shown]:
    """Return the tables of an evaluation, those that have rows."""
    depths = list(next(iter(found.recall.values())).at)
    recall = [
        [
            _arrow(pair),
            *(_share(figures.at[k], figures.interval[f"R@{k}"]) for k in depths),
            _number(figures.mrr, figures.interval["MRR"]),
            f"{figures.median_rank:,.6g}",
            f"{figures.queries:,}",
            f"{figures.gallery:,}",
        ]
        for pair, figures in found.recall.items()
    ]
    graded = [
        [_arrow(pair), _number(figures.at_10, figures.interval), f"{figures.queries:,}", f"{figures.gallery:,}"]
        for pair, figures in found.ndcg.items()
    ]
    calibration = [
        [_arrow(pair), name, f"{curve.ece:.3f}", f"{curve.ece_equal_width:.3f}", f"{curve.count:,}"]
        for pair, curves in found.calibration.items()
        for name, curve in curves.items()
    ]
    first, sizes = "query -> gallery", ["queries", "gallery"]
    tables: list[Shown] = [
        ("", [first, *(f"R@{k}" for k in depths), "MRR", "median rank", *sizes], recall),
        ("Graded, by the table's scores:", [first, "nDCG@10", *sizes], graded),
        (
            "Calibration: how far probabilities are from what came true (ECE).",
            [first, "sample", "ECE, equal mass", "ECE, equal width", "judgements"],
            calibration,
        ),
    ]
    return [table for table in tables if table[2]]


def _class_rows(found: ZeroShot) -> tuple[list[str], list[list[str]]]:
    rows = []
    for place, (label, share) in enumerate(found.per_class.items()):
        taken = found.matrix[place].copy()
        count = int(taken.sum())
        taken[place] = 0
        mistaken = f"{found.labels[int(taken.argmax())]} ({int(taken.max()):,})" if taken.any() else ""
        rows.append([label, f"{share:.1%}", f"{count:,}", mistaken])
    return ["class", "right", "items", "most often mistaken for"], rows


def _accuracy(found: ZeroShot) -> str:
    low, high = found.interval
    return (
        f"accuracy {found.accuracy:.1%} ({low:.1%} to {high:.1%}) of {found.items:,} in {len(found.labels):,} classes; "
        f"chance {1 / len(found.labels):.1%}, mean over classes {found.balanced_accuracy:.1%}"
    )


def _about(found: Evaluation | ZeroShot) -> dict[str, Any]:
    return {
        "space": _space_json(found.space),
        "table": str(found.table),
        "columns": dict(found.columns),
        "refused": len(found.refused),
        "refused_rows": [asdict(row) for row in found.refused],
        "protocol": "; ".join(found.protocol),
    }


def _space_json(space: Space) -> dict[str, Any]:
    return {"name": space.name, "dim": space.dim, "revision": space.revision}


def _reliability_json(curve: Reliability) -> dict[str, Any]:
    told = asdict(curve)
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in told.items()}


def _facts(found: Evaluation | ZeroShot) -> list[str]:
    first, *rest = found.protocol
    read = ", ".join(f"{role}={column}" for role, column in found.columns.items())
    return [
        f"space       {printable(found.space.name)} ({found.space.dim} dimensions, revision {found.space.revision})",
        f"table       {printable(str(found.table))} (columns: {printable(read)})",
        f"protocol    {first}",
        *[f"            {line}" for line in rest],
    ]


def _bullets(found: Evaluation | ZeroShot) -> list[str]:
    read = ", ".join(f"{role}={column}" for role, column in found.columns.items())
    about = f"- space: {found.space.name}, {found.space.dim} dimensions, revision {found.space.revision}"
    return [
        plain(about),
        plain(f"- table: {found.table.name}, columns {read}"),
        f"- protocol: {'; '.join(found.protocol)}",
    ]


def _refused_text(refused: Sequence[RefusedRow]) -> list[str]:
    if not refused:
        return []
    lines = [f"refused     {_rows(len(refused))}"]
    lines += [f"            line {row.line:,}: {printable(row.reason)}" for row in refused[:REFUSED_SHOWN]]
    if len(refused) > REFUSED_SHOWN:
        lines.append(f"            and {len(refused) - REFUSED_SHOWN:,} more (--json lists all)")
    return lines


def _refused_lines(refused: Sequence[RefusedRow]) -> list[str]:
    if not refused:
        return ["- no row was refused"]
    lines = [f"- refused: {_rows(len(refused))}"]
    lines += [f"  - line {row.line:,}: {plain(row.reason)}" for row in refused[:REFUSED_SHOWN]]
    return lines + ([f"  - and {len(refused) - REFUSED_SHOWN:,} more"] if len(refused) > REFUSED_SHOWN else [])


def _rows(count: int) -> str:
    return f"{count:,} {'row' if count == 1 else 'rows'}"


def _arrow(pair: Pair) -> str:
    return f"{pair[0]}->{pair[1]}"


def _share(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.1%} ({interval[0]:.1%}-{interval[1]:.1%})".replace("%-", "-").replace("%)", ")")


def _number(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f}-{interval[1]:.3f})"


def _is_plain(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)
