"""The commands that say how good a space is: `trivium evaluate` and `trivium zero-shot`."""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from trivium.encoders.base import MODALITIES
from trivium.encoders.files.writing import make_folder
from trivium.pipeline.cli.ends import Command
from trivium.pipeline.cli.options import (
    UsageError,
    add_device,
    add_json,
    add_seed,
    add_table,
    columns_of,
    device_of,
    positive,
    where_of,
)
from trivium.pipeline.cli.terminal import announce, progress_bars, say
from trivium.pipeline.escaping import printable
from trivium.pipeline.evaluation import plots, report
from trivium.pipeline.evaluation.recall import Evaluation, evaluate
from trivium.pipeline.evaluation.zero_shot import TemplateError, name_classes, read_templates
from trivium.pipeline.space.joint import JointSpace, load_space
from trivium.pipeline.tables.pairs import Role, read_pairs

TABLE = "CSV, JSON lines (.jsonl) or Parquet; columns text, image, audio, label, score; files relative to it"


def evaluate_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium evaluate`."""
    parser.description = "Each row of TABLE holds what belongs together: a text, a picture, a sound, or two of them."
    parser.add_argument("space", metavar="SPACE", help="a space's name or folder (see `trivium spaces`)")
    parser.add_argument("table", metavar="TABLE", help=TABLE)
    add_table(parser)
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="use N pictures (or sounds) drawn at random, with all their rows"
    )
    add_seed(parser)
    _add_report(parser, "evaluation.json, evaluation.md and recall.png")


def run_evaluate(options: argparse.Namespace) -> int:
    """Tell how well a space finds what belongs together."""
    device_of(options)
    table = read_pairs(options.table, columns=columns_of(options), where=where_of(options))
    space = _space(options)
    with progress_bars() as show:
        known = space.relevance
        found = evaluate(
            space,
            table,
            limit=options.limit,
            seed=options.seed,
            calibration=None if known is None else known.probabilities,
            progress=show,
        )
    told = report.evaluation_json(found)
    if options.out is not None:
        folder = Path(options.out)
        drawn = _draw(folder, "recall.png", lambda target: plots.draw_recall(found, target))
        report.write_report(folder, "evaluation", told, report.evaluation_markdown(found, picture=drawn))
        _draw_reliabilities(found, folder)
        announce(f"wrote {printable(str(folder / 'evaluation.md'))}")
    say(*([json.dumps(told)] if options.json else report.evaluation_text(found).split("\n")))
    return 0


def zero_shot_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium zero-shot`."""
    parser.description = (
        "Each row of TABLE holds a picture, a sound or a text, and its label; the labels are the classes."
    )
    parser.add_argument("space", metavar="SPACE", help="a space's name or folder (see `trivium spaces`)")
    parser.add_argument("table", metavar="TABLE", help=TABLE)
    parser.add_argument("--modality", choices=MODALITIES, required=True, help="what is named")
    parser.add_argument("--label", metavar="COLUMN", required=True, help="the column with the classes")
    parser.add_argument(
        "--templates",
        metavar="FILE",
        help="prompts, one a line, with {} where the label goes (the output tells the default)",
    )
    add_table(parser)
    _add_report(parser, "zero-shot.json, zero-shot.md and confusion.png")


def run_zero_shot(options: argparse.Namespace) -> int:
    """Tell how well a space names things by the words of their classes."""
    device_of(options)
    columns: dict[Role, str] = {**columns_of(options), "label": options.label}
    try:
        templates = None if options.templates is None else read_templates(options.templates)
    except TemplateError as error:
        raise UsageError(str(error)) from error
    table = read_pairs(options.table, columns=columns, where=where_of(options))
    space = _space(options)
    with progress_bars() as show:
        found = name_classes(space, table, modality=options.modality, templates=templates, progress=show)
    told = report.zero_shot_json(found)
    if options.out is not None:
        folder = Path(options.out)
        drawn = _draw(folder, "confusion.png", lambda target: plots.draw_confusion(found, target))
        report.write_report(folder, "zero-shot", told, report.zero_shot_markdown(found, picture=drawn))
        announce(f"wrote {printable(str(folder / 'zero-shot.md'))}")
    say(*([json.dumps(told)] if options.json else report.zero_shot_text(found).split("\n")))
    return 0


def _space(options: argparse.Namespace) -> JointSpace:
    return load_space(options.space, device=options.device, precision=options.precision, announce=announce)


def _draw(folder: Path, name: str, draw: Callable[[Path], None]) -> str | None:
    """Draw a picture if that can be done; return its name then."""
    make_folder(folder)
    if not plots.can_draw():
        announce(plots.MISSING)
        return None
    draw(folder / name)
    return name


def _draw_reliabilities(found: Evaluation, folder: Path) -> None:
    if not plots.can_draw():  # which was told
        return
    for (query, gallery), curves in found.calibration.items():
        title = f"{found.space.name}: {query} to {gallery}"
        plots.draw_reliability(curves, folder / f"reliability-{query}-{gallery}.png", title=title)


def _add_report(parser: argparse.ArgumentParser, files: str) -> None:
    parser.add_argument("--out", metavar="FOLDER", help=f"also write {files} there")
    add_json(parser, help="print one JSON object and nothing else")
    add_device(parser)


COMMANDS: Mapping[str, Command] = {
    "evaluate": Command(evaluate_options, run_evaluate),
    "zero-shot": Command(zero_shot_options, run_zero_shot),
}
