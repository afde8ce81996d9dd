"""The commands for people with a classifier downstream: `trivium features` and `trivium classify`."""

import argparse
import importlib.util
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from trivium.encoders.base import MODALITIES
from trivium.encoders.devices import resolve
from trivium.encoders.files.writing import make_folder, write_file
from trivium.pipeline.cli.ends import Command
from trivium.pipeline.cli.options import UsageError, add_device, add_json, add_seed, columns_of, device_of
from trivium.pipeline.cli.terminal import announce, say
from trivium.pipeline.escaping import code_block, plain, printable
from trivium.pipeline.fused.loading import is_text_classifier, load_classifier
from trivium.pipeline.fused.table import NEEDS, read_frame
from trivium.pipeline.space.config import SpaceError
from trivium.pipeline.space.joint import DEFAULT_SPACE
from trivium.pipeline.tables.reading import TableError, spreadsheet_cell

TABLE = "CSV, JSON lines (.jsonl) or Parquet; columns text, image, audio, any of them; files relative to it"


def features_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium features`."""
    parser.add_argument("table", metavar="TABLE", help=TABLE)
    parser.add_argument("--out", metavar="FILE", required=True, help="NAME.parquet or NAME.csv")
    parser.add_argument(
        "--fusion",
        default="concatenation",
        help="concatenation (default), mean, or a network (gated-units, ...), which is trained on --label; a wrong one "
        "lists all",
    )
    parser.add_argument("--label", metavar="COLUMN", help="what a network is trained on")
    parser.add_argument("--space", help="a space's name or folder, whose encoders are used (default: trivium-base)")
    parser.add_argument(
        "--no-layers",
        dest="layers",
        action="store_false",
        help="leave out what inner layers of the encoders say: a third of the numbers, and not as good",
    )
    parser.add_argument(
        "--imagine",
        metavar="COLLECTION",
        help="beside these, what a collection recalls of each row: features of the items nearest to it",
    )
    parser.add_argument(
        "--recalled", choices=MODALITIES, default="image", metavar="MODALITY", help="of which items (default: image)"
    )
    parser.add_argument(
        "--asked-by", choices=MODALITIES, default="text", metavar="MODALITY", help="how they are found (default: text)"
    )
    _add_fused_options(parser)


def run_features(options: argparse.Namespace) -> int:
    """Write the fused vector of each row of a table."""
    _check_installed()
    from trivium.pipeline.fused.features import FusedFeatures
    from trivium.pipeline.fused.imagined import ImaginedFeatures

    frame = read_frame(options.table, columns=columns_of(options))
    target = _target(options.out, options.table)
    maker = FusedFeatures(
        space=_space(options),
        fusion=options.fusion,
        layers=options.layers,
        device=_device(options),
        precision=options.precision,
    )
    maker.set_output(transform="pandas")
    labels = None if options.label is None else _labels(frame, options.label, options.table)
    with _told_warnings(), _told_errors():
        if labels is None:
            found: Any = maker.fit(frame).transform(frame)
        else:
            has = labels.notna()
            found = maker.fit(frame[has], labels[has]).transform(frame)
        if options.imagine is not None:
            recalling = ImaginedFeatures(
                options.imagine, recalled=options.recalled, asked_by=options.asked_by, device=_device(options)
            )
            recalled: Any = recalling.set_output(transform="pandas").fit_transform(frame)
            found = found.join(recalled)
    _write(found, target)
    told = {"rows": len(found), "width": found.shape[1], "fusion": options.fusion, "out": str(target)}
    say(json.dumps(told) if options.json else f"{len(found):,} rows of {found.shape[1]:,} numbers in {target}")
    return 0


def classify_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium classify`."""
    parser.description = "How modalities are fused is chosen by validation on the training rows."
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _train_options(actions.add_parser("train", help="train a classifier on a table with labels"))
    _predict_options(actions.add_parser("predict", help="write a prediction for each row of a table"))
    what = "measure a classifier: figures with intervals, what each modality adds, what it bears"
    _report_options(actions.add_parser("report", help=what))


def run_classify(options: argparse.Namespace) -> int:
    """Train, use or measure a classifier."""
    _check_installed()
    return CLASSIFY[options.action](options)


def _train_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium classify train`."""
    parser.add_argument("table", metavar="TABLE", help=TABLE)
    parser.add_argument("--label", metavar="COLUMN", required=True, help="the column to predict")
    parser.add_argument("--out", metavar="MODEL", required=True, help="the model's folder; a model there is replaced")
    parser.add_argument("--fusion", default="auto", help="auto (default) or one way; a wrong one lists all")
    parser.add_argument("--metric", choices=("f1_macro", "accuracy"), default="f1_macro", help="what auto is chosen by")
    parser.add_argument("--regression", action="store_true", help="the column holds numbers, not classes")
    add_seed(parser)
    parser.add_argument("--space", help="a space's name or folder, whose encoders are used (default: trivium-base)")
    parser.add_argument(
        "--train-on",
        choices=MODALITIES,
        metavar="MODALITY",
        help="learn from this modality's labels alone, in the space: others can be asked about (--apply-to), and their "
        "columns in TABLE say where they lie, no labels needed",
    )
    _add_fused_options(parser)


def _train(options: argparse.Namespace) -> int:
    frame = read_frame(options.table, columns=columns_of(options))
    labels = _labels(frame, options.label, options.table)
    has = labels.notna()
    if not has.all():
        announce(f"{int((~has).sum()):,} of {len(has):,} rows have no '{options.label}' and are left out")
    with _told_warnings(), _told_errors():
        model = _fitted(options, frame, labels)
        model.save(options.out)
    models = model.models()
    told = {
        "rows": int(has.sum()),
        "modalities": list(model.views_),
        "ways": {
            "+".join(names): {"way": of.way, "validation": of.score, "tried": dict(of.tried)}
            for names, of in models.items()
        },
        "out": str(options.out),
    }
    if options.json:
        say(json.dumps(told))
        return 0
    say(f"trained on {told['rows']:,} rows")
    for names, of in models.items():
        tried = ", ".join(f"{way} {100 * score:.1f}" for way, score in of.tried.items())
        say(f"  {'+'.join(names):16} {of.way:12} {100 * of.score:.1f} on validation ({tried})")
    say(f"written to {options.out}")
    return 0


def _fitted(options: argparse.Namespace, frame: Any, labels: Any) -> Any:
    """Fit what the options ask for to the rows that have a label."""
    from trivium.pipeline.fused.classifier import FusedClassifier, FusedRegressor
    from trivium.pipeline.fused.transfer import TransferClassifier

    has = labels.notna()
    given: dict[str, Any] = {"space": _space(options), "device": _device(options), "precision": options.precision}
    if options.train_on is not None:
        if options.regression or options.fusion != "auto":
            raise UsageError("--train-on learns classes in a space: it goes with neither --regression nor --fusion")
        model: Any = TransferClassifier(**given, train_on=options.train_on).fit(frame[has], labels[has].astype(str))
        return model.centre(frame)  # rows without labels say where vectors lie too
    given |= {"fusion": options.fusion, "random_state": options.seed}
    if options.regression:
        return FusedRegressor(**given).fit(frame[has], _numbers(labels[has], options.label))
    return FusedClassifier(**given, metric=options.metric).fit(frame[has], labels[has].astype(str))


def _predict_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium classify predict`."""
    parser.add_argument("model", metavar="MODEL", help="a folder of `classify train` or of `train-text`")
    parser.add_argument("table", metavar="TABLE", help=TABLE)
    parser.add_argument("--out", metavar="FILE", required=True, help="NAME.parquet or NAME.csv")
    _add_apply_to(parser)
    _add_fused_options(parser)
    parser.set_defaults(precision=None)  # as trained


def _predict(options: argparse.Namespace) -> int:
    import pandas

    frame = _asked(options)
    target = _target(options.out, options.table)
    if is_text_classifier(Path(options.model)):
        found = _probable(*_by_text(options, frame))
    else:
        model = _model(options)
        with _told_warnings(), _told_errors():
            _find_place(model, frame)
            if hasattr(model, "classes_"):
                found = _probable(model.classes_, model.predict_proba(frame))
            else:
                found = pandas.DataFrame({"prediction": model.predict(frame)})
    _write(found, target)
    told = {"rows": len(found), "out": str(target)}
    say(json.dumps(told) if options.json else f"{len(found):,} predictions in {target}")
    return 0


def _by_text(options: argparse.Namespace, frame: Any) -> tuple[Any, Any]:
    """Return the labels of a classifier of `train-text`, and their probabilities of each row, shape (n, labels)."""
    from trivium.pipeline.text_learning.classifying import load_text_classifier

    if options.precision == "int8":
        raise UsageError("--precision int8 is for frozen encoders: a classifier of `train-text` was trained in float32")
    if "text" not in frame.columns:
        raise TableError(f"{options.table} has no column of text, and {options.model} is a classifier of texts")
    (device, *_) = resolve(_device(options))
    classifier = load_text_classifier(Path(options.model))
    classifier.to("cpu" if device.startswith("cpu") else device)
    texts = [cell if isinstance(cell, str) else "" for cell in frame["text"]]
    if missing := sum(not text.strip() for text in texts):
        announce(
            f"{missing:,} of {len(texts):,} rows have no text: what is predicted of them is what nothing is taken for"
        )
    return np.array(classifier.labels, dtype=object), classifier.predict_proba(texts)


def _probable(classes: Any, probabilities: Any) -> Any:
    """Return a table of what is most probable of each row, and how probable each class is."""
    import pandas

    found = pandas.DataFrame({"prediction": classes[probabilities.argmax(axis=1)]})
    found["probability"] = probabilities.max(axis=1)
    for place, label in enumerate(classes):
        found[f"p({label})"] = probabilities[:, place]
    return found


def _report_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium classify report`."""
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("table", metavar="TABLE", help=TABLE)
    parser.add_argument("--label", metavar="COLUMN", help="the column with the truth (default: as trained)")
    parser.add_argument("--out", metavar="FOLDER", help="also write report.json, report.md and pictures there")
    add_seed(parser)
    _add_apply_to(parser)
    _add_fused_options(parser)
    parser.set_defaults(precision=None)


def _report(options: argparse.Namespace) -> int:
    from trivium.pipeline.fused.report import report_on, report_on_numbers

    if is_text_classifier(Path(options.model)):
        raise UsageError(f"{options.model} was written by `train-text`, whose --test measures it")
    frame = _asked(options)
    model = _model(options)
    label = options.label or model.label_name_
    if label is None:
        raise UsageError(f"--label: which column of {options.table} holds the truth?")
    labels = _labels(frame, label, options.table)
    has = labels.notna().to_numpy()
    if not has.any():
        raise TableError(f"{options.table} has nothing in column '{label}': there is nothing to compare with")
    with _told_warnings(), _told_errors():
        _find_place(model, frame)
        table = model.table(frame[has])
    found: Any
    if model.kind == "regressor":
        found = report_on_numbers(model.model_, table, _numbers(labels[has], label).to_numpy(), seed=options.seed)
    else:
        found = report_on(model.model_, table, list(labels[has].astype(str)), seed=options.seed)
    if options.out is not None:
        _write_report(options, found)
    say(*([json.dumps(found.to_json())] if options.json else found.lines()))
    return 0


def _write_report(options: argparse.Namespace, found: Any) -> None:
    from trivium.pipeline.evaluation import plots

    folder = Path(options.out)
    make_folder(folder)
    write_file(folder / "report.json", json.dumps(found.to_json(), indent=1) + "\n", own_folder=True)
    page = [
        f"# {plain(Path(options.model).name)} on {plain(Path(options.table).name)}",
        "",
        *code_block(found.lines()),
        "",
    ]
    if plots.can_draw():
        drawn = [found.draw(folder)]
        for name, curves, across in (
            ("missing", found.robustness.missing, "share of rows without it"),
            ("noisy", found.robustness.noisy, "noise in deviations"),
        ):
            title = f"{name} modalities"
            plots.draw_lines(curves, folder / f"{name}.png", title=title, across=across, up=found.metric)
            drawn.append(f"{name}.png")
        page += [*(f"![{Path(name).stem}]({name})" for name in drawn), ""]
    else:
        announce(plots.MISSING)
    write_file(folder / "report.md", "\n".join(page), own_folder=True)
    announce(f"wrote {printable(str(folder / 'report.md'))}")


def _asked(options: argparse.Namespace) -> Any:
    """Read the table that is asked about, and of its modalities only what `--apply-to` names.

    Raises:
        TableError: If it has no such column.
    """
    frame = read_frame(options.table, columns=columns_of(options))
    if options.apply_to is None:
        return frame
    if options.apply_to not in frame.columns:
        raise TableError(f"{options.table} has no column of {options.apply_to} (--apply-to)")
    return frame.drop(columns=[m for m in MODALITIES if m in frame.columns and m != options.apply_to])


def _find_place(model: Any, frame: Any) -> None:
    """Let a transfer learn where those modalities lie that it has not met: from the rows that it is asked about."""
    if model.kind != "transfer":
        return
    unmet = [m for m in model.views_ if m in frame.columns and m not in model.model_.model_.centres]
    if unmet:
        model.centre(frame[unmet])
        announce(f"{', '.join(unmet)} was not in the table that was trained on: centred on the rows asked about")


def _model(options: argparse.Namespace) -> Any:
    from trivium.pipeline.fused.model_folder import ModelError

    try:
        model: Any = load_classifier(options.model)
    except ModelError as error:
        raise TableError(str(error)) from error
    if options.precision is not None:
        model.set_params(precision=options.precision)
    return model.set_params(device=_device(options))


def _labels(frame: Any, column: str, table: str) -> Any:
    if column not in frame.columns:
        named = ", ".join(str(name) for name in frame.columns)
        raise TableError(f"{table} has no column '{column}' (--label); its columns: {named}")
    return frame[column].map(lambda cell: None if cell is None or cell != cell or not str(cell).strip() else cell)


def _numbers(labels: Any, column: str) -> Any:
    try:
        return labels.astype(float)
    except ValueError as error:
        raise TableError(f"column '{column}' holds what is no number: {error}") from error


def _space(options: argparse.Namespace) -> str:
    return options.space or DEFAULT_SPACE


def _device(options: argparse.Namespace) -> str:
    return device_of(options)


def _check_installed() -> None:
    if any(importlib.util.find_spec(name) is None for name in ("pandas", "sklearn")):
        raise UsageError(f"this command {NEEDS}")


def _target(out: str, table: str) -> Path:
    target = Path(out)
    if os.path.realpath(out) == os.path.realpath(table):
        raise UsageError(f"--out {out} is the table itself: name another file")
    if target.suffix not in (".csv", ".parquet"):
        raise UsageError(f"--out {out}: the name must end in .csv or .parquet")
    if target.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UsageError(f"--out {out}: Parquet needs pyarrow: run pip install 'trivium[parquet]', or write .csv")
    return target


def _write(frame: Any, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".csv":
        told = frame.apply(lambda column: column if column.dtype.kind in "biufc" else column.map(spreadsheet_cell))
        told.columns = [spreadsheet_cell(name) for name in frame.columns]
        write_file(target, lambda file: told.to_csv(file, index=False, mode="wb"))
        return
    narrow = {name: np.float32 for name in frame.columns if frame[name].dtype == np.float64}
    write_file(target, lambda file: frame.astype(narrow).to_parquet(file, index=False))


@contextmanager
def _told_warnings() -> Iterator[None]:
    """Tell what counts as missing, as a line and not as a warning of Python's."""
    from trivium.pipeline.features.frames import MissingModalityWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MissingModalityWarning)
        yield
    for each in dict.fromkeys(str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)):
        announce(each)


@contextmanager
def _told_errors() -> Iterator[None]:
    """Tell a caller's mistake, such as a single class, as one line."""
    from trivium.pipeline.fused.model_folder import ModelError

    try:
        yield
    except (ValueError, ModelError) as error:
        raise SpaceError(str(error)) from error


def _add_apply_to(parser: argparse.ArgumentParser) -> None:
    what = "look at this modality alone (default: at all that a row has)"
    parser.add_argument("--apply-to", choices=MODALITIES, metavar="MODALITY", help=what)


def _add_fused_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--column",
        metavar="ROLE=NAME",
        action="append",
        default=[],
        help="read text, image or audio from the column NAME (default: the role's own name, or caption, title, path); "
        "'ROLE=' leaves it out",
    )
    add_device(parser)
    add_json(parser, help="print one JSON object and nothing else")


CLASSIFY: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "train": _train,
    "predict": _predict,
    "report": _report,
}
COMMANDS: Mapping[str, Command] = {
    "features": Command(features_options, run_features),
    "classify": Command(classify_options, run_classify),
}
