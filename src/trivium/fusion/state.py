"""Fitted fusions as named tensors and JSON, and back: never pickle.

The JSON says what there is and the tensors hold the numbers. What was kept may be anybody's: `check_state` looks at
names and shapes alone, before a number is read or a network is made; `from_state` at the numbers.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from trivium.fusion.blocks import BlockScaler
from trivium.fusion.kernels.base_learners import (
    Agreement,
    AgreementLearner,
    AgreementSettings,
    BaseLearner,
    KernelLearner,
    KernelSettings,
)
from trivium.fusion.kernels.fusion import BlockFusion, SubsetModel
from trivium.fusion.kernels.selection import CalibrationMap
from trivium.fusion.networks.fitting import NetworkFusion, parameters_of, with_parameters
from trivium.fusion.networks.registry import FUSIONS, LATE, build_fusion
from trivium.fusion.transfer import Transfer

Fitted: TypeAlias = BlockFusion | NetworkFusion | Transfer
Tensors: TypeAlias = Mapping[str, np.ndarray]
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
SCALER_PARTS = ("mean", "deviation", "weight")
SEPARATOR = "+"  # between modalities of a set
MOST_LEARNERS = 16  # of a set of modalities: six are the most that are fitted
LARGEST = 1e9  # of any number in the JSON


class StateError(ValueError):
    """What was kept is no fusion."""


def state_of(model: Fitted) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return a fusion's tensors and what the JSON says of it."""
    tensors: dict[str, np.ndarray] = {"prior": model.prior}
    if isinstance(model, Transfer):
        tensors |= {"weight": model.weight, "bias": model.bias}
        tensors |= {f"centres.{name}": centre for name, centre in model.centres.items()}
        return tensors, {"kind": "transfer", "modalities": list(model.centres)}
    for name, scaler in model.scalers.items():
        tensors |= {f"scale.{name}.{part}": getattr(scaler, part) for part in SCALER_PARTS}
    told: dict[str, Any] = {"modalities": list(model.scalers), "is_classes": model.is_classes}
    if isinstance(model, NetworkFusion):
        tensors |= parameters_of(model)
        return tensors, {"kind": "network", **told}
    for name, rows in model.centres.items():
        tensors[f"centres.{name}"] = rows.astype(np.float32)  # far finer than the kernel needs
    models = []
    for names, subset in model.models.items():
        key = SEPARATOR.join(names)
        tensors[f"{key}.link.weight"], tensors[f"{key}.link.bias"] = subset.calibration.weight, subset.calibration.bias
        experts = [_learner_state(learner, f"{key}.{place}", tensors) for place, learner in enumerate(subset.learners)]
        models.append(
            {
                "modalities": list(names),
                "way": subset.way,
                "score": subset.score,
                "tried": dict(subset.tried),
                "experts": experts,
            }
        )
    return tensors, {"kind": "kernels", **told, "models": models}


def from_state(tensors: Tensors, told: Mapping[str, Any], *, fusion: str) -> Fitted:
    """Make a fusion of what was kept; `check_state` says before whether it can be one.

    Args:
        tensors: As `state_of` returns them.
        told: What the JSON says.
        fusion: Of a network, its name in `registry.FUSIONS`.

    Raises:
        StateError: If something is missing or does not fit.
    """
    try:
        if not all(np.isfinite(tensor).all() for name, tensor in tensors.items() if not name.startswith("centres.")):
            raise StateError("a tensor holds NaN or infinity")
        if not all((tensor > 0).all() for name, tensor in tensors.items() if name.endswith(".deviation")):
            raise StateError("a deviation is not above 0")
        if told["kind"] == "transfer":
            return Transfer(
                centres={str(name): tensors[f"centres.{name}"] for name in told["modalities"]},
                weight=tensors["weight"],
                bias=tensors["bias"],
                prior=tensors["prior"],
            )
        scalers = {
            name: BlockScaler(**{part: tensors[f"scale.{name}.{part}"] for part in SCALER_PARTS})
            for name in told["modalities"]
        }
        if told["kind"] == "network":
            return _network(tensors, told, scalers, fusion)
        models = {}
        for each in told["models"]:
            names = tuple(str(name) for name in each["modalities"])
            key = SEPARATOR.join(names)
            models[names] = SubsetModel(
                way=str(each["way"]),
                learners=tuple(_learner(kept, f"{key}.{place}", tensors) for place, kept in enumerate(each["experts"])),
                calibration=CalibrationMap(tensors[f"{key}.link.weight"], tensors[f"{key}.link.bias"]),
                score=float(each["score"]),
                tried={str(way): float(score) for way, score in each["tried"].items()},
            )
        return BlockFusion(
            scalers=scalers,
            centres={name: tensors[f"centres.{name}"].astype(np.float64) for name in scalers},
            models=models,
            prior=tensors["prior"],
            is_classes=bool(told["is_classes"]),
        )
    except StateError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StateError(f"{type(error).__name__}: {error}") from error


def _network(
    tensors: Tensors, told: Mapping[str, Any], scalers: Mapping[str, BlockScaler], fusion: str
) -> NetworkFusion:
    import torch

    prior = tensors["prior"]
    is_late = fusion in LATE
    dim = len(prior) if is_late else int(tensors["head.weight"].shape[1])
    made = NetworkFusion(
        scalers=scalers,
        fusion=build_fusion(fusion, {name: len(scaler.mean) for name, scaler in scalers.items()}, dim=dim),
        head=None if is_late else torch.nn.Linear(dim, len(prior)),
        prior=prior,
        is_classes=bool(told["is_classes"]),
    )
    return with_parameters(made, tensors)


def _learner_state(learner: BaseLearner, key: str, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    settings = learner.settings
    if isinstance(learner, AgreementLearner):
        tensors[f"{key}.left"], tensors[f"{key}.right"] = learner.agreement.left, learner.agreement.right
        assert isinstance(settings, AgreementSettings)
        return {"kind": "agreement", "pair": list(settings.pair), "rank": settings.rank, "ridge": settings.ridge}
    assert isinstance(settings, KernelSettings)
    tensors[f"{key}.coefficients"] = learner.coefficients
    return {
        "kind": "kernels",
        "weights": dict(settings.weights),
        "product": settings.product,
        "penalty": settings.penalty,
    }


def _learner(kept: Mapping[str, Any], key: str, tensors: Tensors) -> BaseLearner:
    if kept["kind"] == "agreement":
        first, second = kept["pair"]
        settings = AgreementSettings(pair=(str(first), str(second)), rank=int(kept["rank"]), ridge=float(kept["ridge"]))
        return AgreementLearner(settings=settings, agreement=Agreement(tensors[f"{key}.left"], tensors[f"{key}.right"]))
    weights = {str(name): float(weight) for name, weight in kept["weights"].items()}
    own = KernelSettings(weights=weights, product=float(kept["product"]), penalty=float(kept["penalty"]))
    return KernelLearner(settings=own, coefficients=tensors[f"{key}.coefficients"])


def check_state(shapes: Shapes, told: Any, *, widths: Mapping[str, int], outputs: int, fusion: str) -> None:
    """Check what was kept of a fusion.

    Args:
        shapes: Of the tensors, by name.
        told: What the JSON says.
        widths: Numbers of each modality in the table that the fusion is asked with.
        outputs: Classes, or 1 of a number.
        fusion: The name of a network in `registry.FUSIONS`.

    Raises:
        StateError: If something is missing, does not fit, or is not known.
    """
    kind = _text(told, "kind")
    names = _names(told.get("modalities"), widths)
    wanted: dict[str, tuple[int, ...]] = {"prior": (outputs,)}
    if kind == "transfer":
        if len(set(widths.values())) != 1:
            raise StateError("its modalities must be of one space, of one width")
        dim = widths[names[0]]
        wanted |= {"weight": (outputs, dim), "bias": (outputs,)} | {f"centres.{name}": (dim,) for name in names}
    else:
        if not isinstance(told.get("is_classes"), bool):
            raise StateError("is_classes must be true or false")
        wanted |= {f"scale.{name}.{part}": (widths[name],) for name in names for part in SCALER_PARTS}
        if kind == "network":
            wanted |= _of_network(shapes, {name: widths[name] for name in names}, outputs, fusion)
        elif kind == "kernels":
            rows = shapes.get(f"centres.{names[0]}", (0,))[0]
            wanted |= {f"centres.{name}": (rows, widths[name]) for name in names}
            for model in _list(told, "models", 2 ** len(names), least=0):
                wanted |= dict(_of_subset(model, shapes, {name: widths[name] for name in names}, rows, outputs))
        else:
            raise StateError("its kind is not known")
    for name in sorted(wanted.keys() | shapes.keys()):
        if wanted.get(name) != shapes.get(name):
            is_known = name in wanted
            raise StateError(
                f"the tensor '{name[:60]}' has shape {shapes.get(name, 'none')}, {wanted[name]} is needed"
                if is_known
                else f"there is a tensor {name[:60]!r}, which is not known"
            )


def _of_network(shapes: Shapes, widths: Mapping[str, int], outputs: int, fusion: str) -> dict[str, tuple[int, ...]]:
    if fusion not in FUSIONS:
        raise StateError("its network is not known")
    import torch

    dim = outputs if fusion in LATE else (*shapes.get("head.weight", ()), 0, 0)[1]
    try:
        with torch.device("meta"):  # sizes without numbers
            made = {"fusion.": build_fusion(fusion, widths, dim=dim)}
            if fusion not in LATE:
                made["head."] = torch.nn.Linear(dim, outputs)
    except (RuntimeError, ValueError) as error:
        raise StateError(f"its network cannot be made: {error}") from error
    return {
        prefix + name: tuple(tensor.shape) for prefix, of in made.items() for name, tensor in of.state_dict().items()
    }


def _of_subset(
    model: Any, shapes: Shapes, widths: Mapping[str, int], rows: int, outputs: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    names = _names(model.get("modalities") if isinstance(model, dict) else None, widths)
    _text(model, "way")
    tried = model.get("tried")
    numbers = [model.get("score"), *(tried.values() if isinstance(tried, dict) else [None])]
    if not all(isinstance(number, float | int) for number in numbers):
        raise StateError("a model has no scores")
    key, scores = SEPARATOR.join(names), 0
    for place, expert in enumerate(_list(model, "experts", MOST_LEARNERS)):
        kind = _text(expert, "kind")
        if kind == "kernels":
            weights = expert.get("weights")
            if not isinstance(weights, dict) or not weights or not weights.keys() <= set(names):
                raise StateError("an expert has weights of modalities that its model has not")
            if not all(_is_number(weight) and weight > 0 for weight in weights.values()):
                raise StateError("the weights of an expert must be above 0")
            if not all(_is_number(expert.get(part)) and expert[part] >= 0 for part in ("product", "penalty")):
                raise StateError("an expert needs a product and a penalty")
            yield f"{key}.{place}.coefficients", (rows, outputs)
            scores += outputs
        elif kind == "agreement":
            pair = _names(expert.get("pair"), dict.fromkeys(names, 0))
            if len(pair) != 2 or not all(_is_number(expert.get(part)) for part in ("rank", "ridge")):
                raise StateError("an expert needs a pair of modalities, a rank and a ridge")
            left = shapes.get(f"{key}.{place}.left", (0, 0, 0))
            maps, rank = (left[0], left[-1]) if len(left) == 3 else (0, 0)
            if maps not in (1, outputs) or not rank:
                raise StateError("an expert has maps of other classes than its model")
            yield f"{key}.{place}.left", (maps, widths[pair[0]], rank)
            yield f"{key}.{place}.right", (maps, widths[pair[1]], rank)
            scores += maps
        else:
            raise StateError("an expert's kind is not known")
    yield f"{key}.link.weight", (scores, outputs)
    yield f"{key}.link.bias", (outputs,)


def _names(told: Any, known: Mapping[str, int]) -> Sequence[str]:
    is_list = isinstance(told, list) and bool(told) and all(isinstance(name, str) for name in told)
    if not is_list or len(set(told)) < len(told) or not set(told) <= known.keys():
        raise StateError("its modalities are not those of the model")
    names: Sequence[str] = told
    return names


def _list(told: Any, key: str, most: int, *, least: int = 1) -> list[Any]:
    found = told.get(key) if isinstance(told, dict) else None
    if not isinstance(found, list) or not least <= len(found) <= most:
        raise StateError(f"it needs a list of {least} to {most} {key}")
    return found


def _text(told: Any, key: str) -> str:
    found = told.get(key) if isinstance(told, dict) else None
    if not isinstance(found, str):
        raise StateError(f"it has no {key}")
    return found


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -LARGEST <= value <= LARGEST
