"""`trivium align`: tables and frozen encoders in, a space folder out."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivium.encoders.base import MODALITIES, Modality
from trivium.encoders.devices import resolve
from trivium.pipeline.align.pairs import Source, gather
from trivium.pipeline.cli.ends import Command
from trivium.pipeline.cli.options import (
    UsageError,
    add_device,
    add_json,
    add_seed,
    add_table,
    columns_of,
    device_of,
    natural,
    numbers,
    positive,
    share,
    where_of,
)
from trivium.pipeline.cli.terminal import announce, progress_bars, say
from trivium.pipeline.evaluation import plots
from trivium.pipeline.space.config import OPEN_CLIP, EncoderConfig, ProjectionConfig
from trivium.pipeline.space.folder import check_target, write_space
from trivium.pipeline.space.joint import JointSpace, load_space, space_of
from trivium.pipeline.tables.pairs import read_pairs

if TYPE_CHECKING:
    from trivium.pipeline.align.alignment import Plan

CLOSED_FORM_DIM = 384


def align_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium align`."""
    parser.description = (
        "Each row of a TABLE holds what belongs together: a text, a picture, a sound, or two; a label "
        "becomes a text. Items are encoded once, and kept in the cache."
    )
    parser.add_argument(
        "tables", metavar="TABLE", nargs="+", help="CSV, JSON lines or Parquet; text, image, audio, label"
    )
    parser.add_argument("--out", metavar="FOLDER", required=True, help="the space's folder; a space there is replaced")
    parser.add_argument(
        "--encoders",
        metavar="ENCODERS",
        default="trivium-base",
        help="a space whose backbones are used, or text=...,image=...,audio=...; both: a space, and one added to it",
    )
    parser.add_argument(
        "--keep",
        metavar="MODALITIES",
        help="text,image: leave the space's own vectors of these as they are, and bring only the others to them",
    )
    parser.add_argument("--name", help="of the space (default: the folder's)")
    parser.add_argument(
        "--method",
        choices=("trained", "closed-form"),
        default="trained",
        help="closed-form: seconds instead of minutes, and nearly as good where pairs are few",
    )
    parser.add_argument("--weights", type=numbers, metavar="W,W", help="how much each table counts (default 1 each)")
    parser.add_argument("--templates", metavar="FILE", help="texts for labels, one a line, with {} for the label")
    parser.add_argument("--validation", type=share, default=0.1, help="share that is held out (default 0.1)")
    parser.add_argument(
        "--pseudo-pairs",
        type=share,
        default=0.5,
        metavar="SHARE",
        help="of modalities that no table pairs: how much pairs of items with like texts count (default 0.5; 0: none)",
    )
    add_seed(parser)
    parser.add_argument("--dim", type=positive, help="numbers of a member's vectors")
    parser.add_argument("--members", type=positive, help="heads side by side; vectors have members x dim numbers")
    parser.add_argument("--hidden", type=natural, help="units of a head's hidden layer; 0: none")
    parser.add_argument("--epochs", type=positive, help="how long to train")
    parser.add_argument("--loss", choices=("nce", "sigmoid"), help="InfoNCE (default), or the sigmoid loss")
    parser.add_argument("--half", action="store_true", help="keep the heads in half precision")
    add_json(parser, help="print the training record as one JSON object")
    add_table(parser)
    add_device(parser)


def run_align(options: argparse.Namespace) -> int:
    """Align encoders, and write the space."""
    from trivium.pipeline.align.alignment import align, features_of  # brings torch, which --help need not wait for
    from trivium.pipeline.align.card import CURVE, draw_curve, model_card, training_record

    target = Path(options.out)
    check_target(target)
    sources = _sources(options)
    space = _space(options)
    plan = _plan(options, space)
    material = gather(
        sources,
        modalities=space.modalities,
        held_out=options.validation,
        seed=options.seed,
        templates=None if options.templates is None else _templates(options.templates),
    )
    with progress_bars() as show:
        features, failures = features_of(space, material, progress=show)
        _tell_failures(material.items, failures)
        found = align(
            space,
            material.without(failures),
            features,
            plan,
            progress=lambda done, total, _: show("align", done, total),
        )
    encoders: dict[Modality, EncoderConfig] = {
        m: space.config_of(m) for m in MODALITIES if m in found.heads or m in plan.kept
    }
    name = options.name or target.name
    record = training_record(found, plan, sources, {m: encoder.backbone for m, encoder in encoders.items()})
    has_curve = found.training is not None and plots.can_draw()
    more: dict[str, str | bytes] = {"training.json": json.dumps(record, indent=1) + "\n"}
    more["card.md"] = model_card(name, record, has_curve=has_curve)
    if has_curve:
        more[CURVE] = draw_curve(record)
    write_space(
        target,
        name=name,
        description=f"aligned from {', '.join(source.table.path.name for source in sources)}",
        dim=next(iter(found.heads.values())).dim,
        encoders=encoders,
        heads=found.heads,
        relevance=found.relevance,
        half=options.half,
        more=more,
    )
    if found.training is not None and not has_curve:
        announce(plots.MISSING)
    if options.json:
        say(json.dumps({**record, "out": str(target)}))
    else:
        _print_summary(record, target)
    return 0


def _sources(options: argparse.Namespace) -> list[Source]:
    weights = options.weights or [1.0] * len(options.tables)
    if len(weights) != len(options.tables):
        raise UsageError(f"--weights: {len(weights)} for {len(options.tables)} tables")
    sources = []
    for path, weight in zip(options.tables, weights, strict=True):
        table = read_pairs(path, columns=columns_of(options), where=where_of(options))
        if table.refused:
            announce(
                f"{path}: {len(table.refused):,} rows left out, the first in line {table.refused[0].line}: "
                f"{table.refused[0].reason}"
            )
        sources.append(Source(table=table, weight=weight))
    return sources


def _space(options: argparse.Namespace) -> JointSpace:
    """Return a space that has the encoders that were asked for, with their own projections where it has any."""
    device_of(options)
    encoders: dict[Modality, EncoderConfig] = {}
    dim, name = 0, "to be aligned"
    named: list[str] = []
    for part in options.encoders.split(","):
        modality, equals, backbone = part.partition("=")
        if not equals or modality not in MODALITIES:
            base = load_space(part, device=options.device, announce=announce)
            encoders |= {m: base.config_of(m) for m in base.modalities}
            dim, name = base.space.dim, base.space.name
            named += [base.source]
        elif backbone.startswith(OPEN_CLIP):
            base = load_space(backbone, device=options.device, announce=announce)
            encoders[modality] = base.config_of(modality)
            named += [base.source]
        else:
            encoders[modality] = EncoderConfig(backbone=backbone, projection=ProjectionConfig(kind="identity"))
    return space_of(encoders, name=name, dim=dim, device=options.device, announce=announce, named=named)


def _plan(options: argparse.Namespace, space: JointSpace) -> "Plan":
    from trivium.fusion.projections.training import Recipe
    from trivium.pipeline.align.alignment import Plan

    kept: tuple[Any, ...] = tuple(m for m in (options.keep or "").split(",") if m)
    if unknown := [m for m in kept if m not in space.modalities]:
        raise UsageError(f"--keep {unknown[0]}: the encoders are for {', '.join(space.modalities)}")
    recipe = Recipe(seed=options.seed)
    given = {key: getattr(options, key) for key in ("dim", "members", "hidden", "epochs", "loss")}
    recipe = replace(recipe, **{key: value for key, value in given.items() if value is not None})
    if options.method == "closed-form" and options.dim is None:
        recipe = replace(recipe, dim=CLOSED_FORM_DIM)
    (device, *_) = resolve(options.device)
    return Plan(
        kept=kept,
        method=options.method,
        recipe=recipe,
        pseudo_share=options.pseudo_pairs,
        device="cpu" if device.startswith("cpu") else device,
    )


def _templates(path: str) -> list[str]:
    from trivium.pipeline.evaluation.zero_shot import TemplateError, read_templates

    try:
        return list(read_templates(path))
    except TemplateError as error:
        raise UsageError(str(error)) from error


def _tell_failures(items: Mapping[Modality, Any], failures: Mapping[Modality, Mapping[int, str]]) -> None:
    for modality, of in failures.items():
        for place, reason in list(of.items())[:10]:
            announce(f"left out: {items[modality][place]}: {reason}")
        if len(of) > 10:
            announce(f"left out: {len(of) - 10:,} more of {modality}")


def _print_summary(record: Mapping[str, Any], target: Path) -> None:
    say(f"{'held-out pairs':18}{'R@1':>8}{'R@5':>8}{'R@10':>8}    closed form: R@1 and R@10")
    for direction, recall in record["recall"].items():
        first = record["closed_form_recall"].get(direction, {})
        say(
            f"{direction:18}"
            + "".join(f"{recall[k]:8.1%}" for k in ("R@1", "R@5", "R@10"))
            + "    "
            + " ".join(f"{first[k]:8.1%}" for k in ("R@1", "R@10") if k in first)
        )
    if not record["recall"]:
        say("no pairs were held out: `trivium evaluate` tells how good the space is")
    say(f"The space is in {target}; card.md tells how it was made.")
    say(f"Try: trivium index COLLECTION MEDIA --space {target}")


COMMANDS: Mapping[str, Command] = {"align": Command(align_options, run_align)}
