"""Naming items by the words of classes that the space was never trained on: the nearest class of prompts wins."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import DecodeError, Modality, Space, Vectors, unit_rows
from trivium.encoders.decoding.texts import decode_text
from trivium.encoders.files.reading import read_file
from trivium.pipeline.evaluation.encoding import encode_rows
from trivium.pipeline.evaluation.metrics import confusion_matrix, wilson_interval
from trivium.pipeline.progress import Bars
from trivium.pipeline.space.joint import JointSpace
from trivium.pipeline.tables.pairs import PairTable, RefusedRow, Role, Row, TableError

# One form that most captions have, and the bare word: no set of prompts tuned to anything.
TEMPLATES: Mapping[Modality, tuple[str, ...]] = {
    "text": ("{}", "this text is about {}."),
    "image": ("a photo of a {}.", "{}"),
    "audio": ("the sound of {}.", "{}"),
}
MAX_TEMPLATE_BYTES = 1 << 20


class TemplateError(ValueError):
    """A file of prompts that cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroShot:
    """What was taken for what."""

    space: Space
    table: Path
    columns: Mapping[Role, str]
    modality: Modality
    accuracy: float
    interval: tuple[float, float]
    labels: Sequence[str]
    matrix: NDArray[np.int64]  # (classes, classes): of the class of the row, taken for the class of the column
    templates: Sequence[str]
    refused: Sequence[RefusedRow] = field(repr=False)
    protocol: Sequence[str]

    @property
    def items(self) -> int:
        """How many were named."""
        return int(self.matrix.sum())

    @property
    def per_class(self) -> Mapping[str, float]:
        """Share of each class's items that were named rightly."""
        shares = np.diag(self.matrix) / self.matrix.sum(axis=1)
        return dict(zip(self.labels, shares.tolist(), strict=True))

    @property
    def balanced_accuracy(self) -> float:
        """Mean over classes, however many items each has."""
        return float(np.mean(list(self.per_class.values())))


def name_classes(
    space: JointSpace,
    table: PairTable,
    *,
    modality: Modality,
    templates: Sequence[str] | None = None,
    progress: Bars | None = None,
) -> ZeroShot:
    """Give each item of a table the label whose prompts lie nearest, and compare with its own.

    Args:
        space: Has encoders for text and for the modality.
        table: Rows with an item of the modality and a label; its labels are the classes.
        modality: What is named.
        templates: Prompts with ``{}`` where the label goes; else those of `TEMPLATES`.
        progress: Called while items are encoded.

    Raises:
        TableError: If fewer than two classes have items.
        SpaceError: If the space has no encoder for one of the two.
    """
    templates = TEMPLATES[modality] if templates is None else templates
    rows, refused = _labelled(table, modality)
    encoded = encode_rows(space, rows, [modality], progress=progress)
    # A file counts once, however many rows name it; with two labels, once with each.
    named = list(dict.fromkeys((str(row.item(modality)), str(row.label)) for row in encoded.rows))
    labels = sorted({label for _, label in named})
    refused = sorted([*table.refused, *refused, *encoded.refused], key=lambda row: row.line)
    if len(labels) < 2:
        first = (
            f"; {len(refused):,} refused, the first in line {refused[0].line}: {refused[0].reason}" if refused else ""
        )
        raise TableError(
            f"{table.path}: naming needs rows of at least 2 labels with {modality}, {len(labels)} found; read from "
            f"columns {', '.join(f'{role}={column}' for role, column in table.columns.items())}{first}"
        )
    classes = class_vectors(space, labels, templates)
    number = {label: place for place, label in enumerate(labels)}
    truth = np.array([number[label] for _, label in named], np.int64)
    scores = encoded.of(modality, (item for item, _ in named)) @ classes.T  # (n, classes)
    matrix = confusion_matrix(truth, np.argmax(scores, axis=1).astype(np.int64), classes=len(labels))
    right = int(np.trace(matrix))
    return ZeroShot(
        space=space.space,
        table=table.path,
        columns=dict(table.columns),
        modality=modality,
        accuracy=right / len(named),
        interval=wilson_interval(right, len(named)),
        labels=labels,
        matrix=matrix,
        templates=tuple(templates),
        refused=refused,
        protocol=(
            "a class is the unit mean of its prompts' vectors ('_' in a label is read as a space)",
            f"an item is taken for the class of the highest cosine, of all {len(labels):,} labels in the table",
            "95 % interval: Wilson",
        ),
    )


def class_vectors(space: JointSpace, labels: Sequence[str], templates: Sequence[str]) -> Vectors:
    """Return the unit mean of each label's prompts, shape (classes, d)."""
    words = [label.replace("_", " ").strip() or label for label in labels]
    prompts = [template.replace("{}", word) for word in words for template in templates]
    vectors = space.encode("text", prompts).reshape(len(labels), len(templates), -1)
    return unit_rows(vectors.mean(axis=1))


def read_templates(path: str | os.PathLike[str]) -> list[str]:
    """Read prompts, one a line; empty lines are passed over.

    Raises:
        TemplateError: If the file cannot be read, or a line is not a prompt with one ``{}``.
    """
    try:
        text = decode_text(read_file(os.path.realpath(path), max_bytes=MAX_TEMPLATE_BYTES))
    except DecodeError as error:
        raise TemplateError(f"templates {os.fspath(path)}: {error.reason}") from error
    templates = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        if "{}" not in line:
            raise TemplateError(
                f"templates {os.fspath(path)}, line {number}: a prompt has {{}} where the label goes, got '{line[:60]}'"
            )
        templates.append(line.strip())
    if not templates:
        raise TemplateError(
            f"templates {os.fspath(path)}: no prompt in it; write one a line, such as 'a photo of a {{}}.'"
        )
    return list(dict.fromkeys(templates))


def _labelled(table: PairTable, modality: Modality) -> tuple[list[Row], list[RefusedRow]]:
    """Part the rows that can be named from the others."""
    usable: list[Row] = []
    refused: list[RefusedRow] = []
    for row in table.rows:
        lacking = [what for what, has in ((modality, row.item(modality)), ("label", row.label)) if has is None]
        if lacking:
            refused.append(RefusedRow(line=row.line, reason=f"has no {' and no '.join(lacking)}"))
        else:
            usable.append(row)
    return usable, refused
