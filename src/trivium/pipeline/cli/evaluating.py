"""The commands that say how good a space is: `trivium evaluate` and `trivium zero-shot`."""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from trivium.encoders.files.whole_file import make_folder
from trivium.pipeline.cli.options import UsageError, columns_of, device_of, where_of
from trivium.pipeline.cli.terminal import announce, progress_bars, say
from trivium.pipeline.escaping import printable
from trivium.pipeline.evaluation import plots, report
from trivium.pipeline.evaluation.recall import Evaluation, evaluate
from trivium.pipeline.evaluation.zero_shot import TemplateError, name_classes, read_templates
from trivium.pipeline.space.joint import JointSpace, load_space
from trivium.pipeline.tables.pairs import Role, read_pairs


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


EVALUATION: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "evaluate": run_evaluate,
    "zero-shot": run_zero_shot,
}
