"""`trivium align`: tables and frozen encoders in, a space folder out."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from trivium.encoders.base import MODALITIES, Modality
from trivium.encoders.devices import resolve
from trivium.fusion.projections.training import Recipe
from trivium.pipeline.align.alignment import Plan, align, features_of
from trivium.pipeline.align.card import CURVE, draw_curve, model_card, training_record
from trivium.pipeline.align.pairs import Source, gather
from trivium.pipeline.cli.options import UsageError, columns_of, device_of, where_of
from trivium.pipeline.cli.terminal import announce, progress_bars, say
from trivium.pipeline.evaluation import plots
from trivium.pipeline.space.config import OPEN_CLIP, EncoderConfig, ProjectionConfig
from trivium.pipeline.space.folder import check_target, write_space
from trivium.pipeline.space.joint import JointSpace, load_space, space_of
from trivium.pipeline.tables.pairs import read_pairs

CLOSED_FORM_DIM = 384


def run_align(options: argparse.Namespace) -> int:
    """Align encoders, and write the space."""
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


def _plan(options: argparse.Namespace, space: JointSpace) -> Plan:
    kept = tuple(m for m in options.keep.split(",") if m)
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
