"""Fitted fusions as named tensors and JSON, and back: never pickle.

The JSON says what there is and the tensors hold the numbers; each is checked when it is read.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from trivium.fusion.kernels.agreement import Agreement
from trivium.fusion.kernels.blocks import Scale
from trivium.fusion.kernels.experts import AgreementExpert, AgreementPlan, Expert, KernelExpert, KernelPlan
from trivium.fusion.kernels.fusion import BlockFusion, SubsetModel
from trivium.fusion.kernels.link import Link
from trivium.fusion.networks.fitting import NetworkFusion, parameters_of, with_parameters
from trivium.fusion.networks.registry import LATE, build_fusion
from trivium.fusion.state_check import SCALE, SEPARATOR, StateError
from trivium.fusion.transfer import Transfer

Fitted: TypeAlias = BlockFusion | NetworkFusion | Transfer
Tensors: TypeAlias = Mapping[str, np.ndarray]


def state_of(model: Fitted) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return a fusion's tensors and what the JSON says of it."""
    tensors: dict[str, np.ndarray] = {"prior": model.prior}
    if isinstance(model, Transfer):
        tensors |= {"weight": model.weight, "bias": model.bias}
        tensors |= {f"centres.{name}": centre for name, centre in model.centres.items()}
        return tensors, {"kind": "transfer", "modalities": list(model.centres)}
    for name, scale in model.scales.items():
        tensors |= {f"scale.{name}.{part}": getattr(scale, part) for part in SCALE}
    told: dict[str, Any] = {"modalities": list(model.scales), "is_classes": model.is_classes}
    if isinstance(model, NetworkFusion):
        tensors |= parameters_of(model)
        return tensors, {"kind": "network", **told}
    for name, rows in model.centres.items():
        tensors[f"centres.{name}"] = rows.astype(np.float32)  # far finer than the kernel needs
    models = []
    for names, subset in model.models.items():
        key = SEPARATOR.join(names)
        tensors[f"{key}.link.weight"], tensors[f"{key}.link.bias"] = subset.link.weight, subset.link.bias
        experts = [_expert_state(expert, f"{key}.{place}", tensors) for place, expert in enumerate(subset.experts)]
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
    """Make a fusion of what was kept; `state_check` says before whether it can be one.

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
        scales = {
            name: Scale(**{part: tensors[f"scale.{name}.{part}"] for part in SCALE}) for name in told["modalities"]
        }
        if told["kind"] == "network":
            return _network(tensors, told, scales, fusion)
        models = {}
        for each in told["models"]:
            names = tuple(str(name) for name in each["modalities"])
            key = SEPARATOR.join(names)
            models[names] = SubsetModel(
                way=str(each["way"]),
                experts=tuple(_expert(kept, f"{key}.{place}", tensors) for place, kept in enumerate(each["experts"])),
                link=Link(tensors[f"{key}.link.weight"], tensors[f"{key}.link.bias"]),
                score=float(each["score"]),
                tried={str(way): float(score) for way, score in each["tried"].items()},
            )
        return BlockFusion(
            scales=scales,
            centres={name: tensors[f"centres.{name}"].astype(np.float64) for name in scales},
            models=models,
            prior=tensors["prior"],
            is_classes=bool(told["is_classes"]),
        )
    except StateError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StateError(f"{type(error).__name__}: {error}") from error


def _network(tensors: Tensors, told: Mapping[str, Any], scales: Mapping[str, Scale], fusion: str) -> NetworkFusion:
    import torch

    prior = tensors["prior"]
    is_late = fusion in LATE
    dim = len(prior) if is_late else int(tensors["head.weight"].shape[1])
    made = NetworkFusion(
        scales=scales,
        fusion=build_fusion(fusion, {name: len(scale.mean) for name, scale in scales.items()}, dim=dim),
        head=None if is_late else torch.nn.Linear(dim, len(prior)),
        prior=prior,
        is_classes=bool(told["is_classes"]),
    )
    return with_parameters(made, tensors)


def _expert_state(expert: Expert, key: str, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    plan = expert.plan
    if isinstance(expert, AgreementExpert):
        tensors[f"{key}.left"], tensors[f"{key}.right"] = expert.agreement.left, expert.agreement.right
        assert isinstance(plan, AgreementPlan)
        return {"kind": "agreement", "pair": list(plan.pair), "rank": plan.rank, "ridge": plan.ridge}
    assert isinstance(plan, KernelPlan)
    tensors[f"{key}.coefficients"] = expert.coefficients
    return {"kind": "kernels", "weights": dict(plan.weights), "product": plan.product, "penalty": plan.penalty}


def _expert(kept: Mapping[str, Any], key: str, tensors: Tensors) -> Expert:
    if kept["kind"] == "agreement":
        first, second = kept["pair"]
        plan = AgreementPlan(pair=(str(first), str(second)), rank=int(kept["rank"]), ridge=float(kept["ridge"]))
        return AgreementExpert(plan=plan, agreement=Agreement(tensors[f"{key}.left"], tensors[f"{key}.right"]))
    weights = {str(name): float(weight) for name, weight in kept["weights"].items()}
    own = KernelPlan(weights=weights, product=float(kept["product"]), penalty=float(kept["penalty"]))
    return KernelExpert(plan=own, coefficients=tensors[f"{key}.coefficients"])
