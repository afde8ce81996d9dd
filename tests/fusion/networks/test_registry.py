"""Every fusion keeps the one contract: against a slow NumPy version, and whatever its order, padding and gaps."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor, nn

from trivium.fusion.networks.attention import Bottleneck, CrossAttention, SelfAttentionFusion, TokenEncoder
from trivium.fusion.networks.contract import Inputs, Masks
from trivium.fusion.networks.registry import FUSIONS, build_fusion
from trivium.fusion.networks.vectors import Concatenation, GatedUnits, LateAverage, LateStack, LowRankTensor

WIDTHS = {"text": 3, "image": 5, "audio": 2}
NAMES = ("audio", "image", "text")
DIM = 4


@dataclass(frozen=True)
class Case:
    """A fusion, and the slow version of it in tests/reference/fusions.py."""

    build: Callable[[dict[str, int]], nn.Module]
    slow: str
    numbers: dict[str, int] = field(default_factory=dict)  # that the slow version is told


def case(build: Callable[..., nn.Module], slow: str, *, told: tuple[str, ...] = (), **numbers: int) -> Case:
    given = {"heads": 2, "layers": 2, **numbers}
    return Case(lambda widths: build(widths, dim=DIM, **numbers), slow, {name: given[name] for name in told})


CASES = {
    "concatenation": case(Concatenation, "concatenation"),
    "gated-units": case(GatedUnits, "gated_units"),
    "low-rank-tensor": case(LowRankTensor, "low_rank_tensor", rank=3),
    "self-attention": case(SelfAttentionFusion, "self_attention"),
    "token-encoder": case(TokenEncoder, "token_encoder", told=("heads", "layers"), heads=2, max_tokens=6),
    "bottleneck": case(Bottleneck, "bottleneck", told=("heads", "layers"), heads=2, tokens=2),
    "cross-attention": case(CrossAttention, "cross_attention", told=("heads",), heads=2),
    "late-average": case(LateAverage, "late_average"),
    "late-stack": case(LateStack, "late_stack"),
}
every_fusion = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
# What each of four rows has: all, then one less, two with one only.
GAPS = {"text": [1, 0, 1, 0], "image": [1, 1, 0, 0], "audio": [1, 1, 0, 1]}


def made(case: Case) -> Any:
    """Build a fusion whose parameters are all random: those that start as zeros hide mistakes."""
    torch.manual_seed(0)
    fusion = case.build(WIDTHS).double().eval()
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return fusion


def drawn(case: Case, *, rows: int = 4, tokens: int | None = None) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    middle = () if tokens is None else (tokens,)
    return {m: torch.randn(rows, *middle, d, dtype=torch.float64, generator=generator) for m, d in WIDTHS.items()}


def gaps() -> dict[str, Tensor]:
    return {m: torch.tensor(there, dtype=torch.bool) for m, there in GAPS.items()}


@pytest.fixture
def slow_fusions(reference: Callable[[str], ModuleType]) -> ModuleType:
    return reference("fusions")


def slow(fusions: ModuleType, case: Case, fusion: nn.Module, inputs: Inputs, masks: Masks) -> Any:
    """Fuse row by row with the reference."""
    fuse = partial(getattr(fusions, case.slow), **case.numbers)
    state = {name: tensor.detach().numpy() for name, tensor in fusion.state_dict().items()}
    fused = []
    for row in range(len(next(iter(inputs.values())))):
        has = {}
        for m in NAMES:
            if m in inputs:
                tokens, mask = inputs[m][row].numpy(), masks[m][row].numpy()
                tokens, mask = np.atleast_2d(tokens), np.atleast_1d(mask)
                if mask.any():
                    has[m] = tokens[mask]
        fused.append(fuse(state, has, NAMES))
    return np.array(fused)


# float64 throughout: what differs is the order of sums
close = partial(assert_allclose, rtol=1e-9, atol=1e-11)


@every_fusion
def test_vectors_as_the_reference(case: Case, slow_fusions: ModuleType) -> None:
    fusion, inputs, masks = made(case), drawn(case), gaps()
    fused = fusion(inputs, masks).detach().numpy()
    assert fused.shape == (4, DIM)
    close(fused, slow(slow_fusions, case, fusion, inputs, masks))


@every_fusion
def test_sequences_as_the_reference(case: Case, slow_fusions: ModuleType) -> None:
    fusion, inputs = made(case), drawn(case, tokens=3)
    lengths = {"text": [3, 1, 0, 2], "image": [2, 3, 3, 0], "audio": [1, 0, 2, 0]}
    masks = {m: torch.arange(3) < torch.tensor(of)[:, None] for m, of in lengths.items()}
    close(fusion(inputs, masks).detach().numpy(), slow(slow_fusions, case, fusion, inputs, masks))


@every_fusion
def test_gradients(case: Case) -> None:
    fusion, masks = made(case), {m: mask[:2] for m, mask in gaps().items()}
    inputs = drawn(case, rows=2)
    names = list(fusion.state_dict())
    given = [inputs[m].requires_grad_() for m in NAMES]
    parameters = [tensor.clone().requires_grad_() for tensor in fusion.state_dict().values()]

    def fuse(*tensors: Tensor) -> Tensor:
        own = dict(zip(names, tensors[3:], strict=True))
        fused: Tensor = torch.func.functional_call(fusion, own, (dict(zip(NAMES, tensors[:3], strict=True)), masks))
        return fused

    torch.autograd.gradcheck(fuse, (*given, *parameters), fast_mode=True)


@every_fusion
def test_order_of_modalities_does_not_matter(case: Case) -> None:
    fusion, inputs, masks = made(case), drawn(case), gaps()
    turned = case.build(dict(reversed(list(WIDTHS.items())))).double().eval()
    turned.load_state_dict(fusion.state_dict())
    backwards = dict(reversed(list(inputs.items())))
    assert torch.equal(fusion(inputs, masks), turned(backwards, masks))
    assert fusion.modalities == NAMES
    assert fusion.dim == DIM


@every_fusion
def test_rows_do_not_see_each_other(case: Case) -> None:
    fusion, inputs, masks = made(case), drawn(case), gaps()
    whole = fusion(inputs, masks).detach().numpy()
    for row in range(4):
        alone = {m: x[row : row + 1] for m, x in inputs.items()}, {m: x[row : row + 1] for m, x in masks.items()}
        close(fusion(*alone).detach().numpy()[0], whole[row])


@every_fusion
@pytest.mark.parametrize("filling", [float("nan"), float("inf"), 7.0])
def test_what_stands_in_a_gap_is_not_looked_at(case: Case, filling: float) -> None:
    fusion, inputs, masks = made(case), drawn(case), gaps()
    filled = {m: torch.where(masks[m][:, None], x, filling).requires_grad_() for m, x in inputs.items()}
    fused = fusion(filled, masks)
    assert torch.equal(fused, fusion(inputs, masks))
    fused.sum().backward()
    assert all(torch.isfinite(x.grad).all() for x in filled.values() if x.grad is not None)
    assert all(torch.isfinite(p.grad).all() for p in fusion.parameters() if p.grad is not None)


@every_fusion
def test_a_modality_not_given_is_missing_in_all_rows(case: Case) -> None:
    fusion, inputs = made(case), drawn(case)
    nothing = {"image": torch.zeros(4, dtype=torch.bool)}
    without = {m: x for m, x in inputs.items() if m != "image"}
    assert torch.equal(fusion(without), fusion(inputs, nothing))
    assert not torch.allclose(fusion(without), fusion(inputs))


@every_fusion
def test_padding_changes_nothing(case: Case) -> None:
    fusion, inputs = made(case), drawn(case, tokens=2)
    longer = {m: torch.cat([x, torch.full_like(x, 9.0)], dim=1) for m, x in inputs.items()}
    masks = {m: torch.tensor([[1, 1, 0, 0]] * 4, dtype=torch.bool) for m in inputs}
    close(fusion(longer, masks).detach().numpy(), fusion(inputs).detach().numpy())


@every_fusion
def test_every_modality_and_every_parameter_counts(case: Case) -> None:
    fusion, inputs = made(case), {m: x.requires_grad_() for m, x in drawn(case).items()}
    weights = torch.randn(4, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (fusion(inputs, gaps()) * weights).sum().backward()
    for m, x in inputs.items():
        assert x.grad is not None
        assert x.grad[gaps()[m]].abs().sum() > 0, m
        assert x.grad[~gaps()[m]].abs().sum() == 0, m
    for name, parameter in fusion.named_parameters():
        assert parameter.grad is not None, name
        if "key.bias" not in name:  # softmax does not see what is added to all scores
            assert parameter.grad.abs().sum() > 0, name


@every_fusion
def test_a_small_batch_can_be_learned(case: Case) -> None:
    torch.manual_seed(0)
    fusion = case.build(WIDTHS).double()
    head = nn.Linear(DIM, 2).double()
    inputs, masks, labels = drawn(case), gaps(), torch.tensor([0, 1, 1, 0])
    optimiser = torch.optim.Adam([*fusion.parameters(), *head.parameters()], lr=0.05)
    for _ in range(150):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(head(fusion(inputs, masks)), labels)
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.2


@every_fusion
def test_no_rows(case: Case) -> None:
    fusion = made(case)
    assert fusion({m: x[:0] for m, x in drawn(case).items()}).shape == (0, DIM)


@every_fusion
@pytest.mark.parametrize(
    ("inputs", "masks", "message"),
    [
        ({}, None, "no input is given, at least one of audio, image, text is needed"),
        ({"video": (4, 3)}, None, "an input is given for 'video', this fusion knows audio, image, text"),
        ({"text": (4, 7)}, None, r"'text' must have shape \(n, [34]\) or \(n, t, [34]\), got \(4, 7\)"),
        ({"text": (4,)}, None, r"'text' must have shape .*, got \(4,\)"),
        ({"text": (4, None), "image": (3, None)}, None, "'text' has 4 rows, 'image' has 3"),
        ({"text": (4, None)}, {"image": (4,)}, "a mask is given for 'image', but no input"),
        ({"text": (4, None)}, {"sound": (4,)}, "a mask is given for 'sound', this fusion knows"),
        ({"text": (4, None)}, {"text": (3,)}, r"the mask of 'text' must be bool \(4,\), got torch.bool \(3,\)"),
    ],
)
def test_wrong_inputs(case: Case, inputs: Any, masks: Any, message: str) -> None:
    fusion = made(case)
    given = {
        m: torch.zeros([WIDTHS[m] if d is None else d for d in shape], dtype=torch.float64)
        for m, shape in inputs.items()
    }
    hidden = None if masks is None else {m: torch.ones(shape, dtype=torch.bool) for m, shape in masks.items()}
    with pytest.raises(ValueError, match=message):
        fusion(given, hidden)


@every_fusion
def test_a_row_with_nothing(case: Case) -> None:
    masks = {m: mask.clone() for m, mask in gaps().items()}
    masks["audio"][3] = False
    with pytest.raises(ValueError, match="1 of 4 rows have no modality at all, the first is row 3"):
        made(case)(drawn(case), masks)


@every_fusion
def test_a_mask_of_numbers(case: Case) -> None:
    with pytest.raises(ValueError, match=r"the mask of 'text' must be bool \(4,\), got torch.float32 \(4,\)"):
        made(case)(drawn(case), {"text": torch.ones(4)})


@every_fusion
def test_no_modalities(case: Case) -> None:
    with pytest.raises(ValueError, match="a fusion needs at least one modality, got none"):
        case.build({})


@pytest.mark.parametrize("name", sorted(CASES))
def test_wrong_widths(name: str) -> None:
    with pytest.raises(ValueError, match="the width of 'text' must be at least 1, got 0"):
        build_fusion(name, {"text": 0}, dim=4)
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        build_fusion(name, WIDTHS, dim=0)


def test_the_registry_knows_all_of_them() -> None:
    assert set(FUSIONS) == set(CASES)
    for name in FUSIONS:
        assert type(build_fusion(name, WIDTHS, dim=8)) is type(CASES[name].build(WIDTHS))
    with pytest.raises(ValueError, match="no fusion 'sum': known are concatenation, gated-units"):
        build_fusion("sum", WIDTHS, dim=8)


def test_wrong_numbers() -> None:
    with pytest.raises(ValueError, match="dim must be a multiple of heads, got dim 6 and 4 heads"):
        CrossAttention(WIDTHS, dim=6)
    with pytest.raises(ValueError, match="rank must be at least 1, got 0"):
        LowRankTensor(WIDTHS, dim=4, rank=0)
    with pytest.raises(ValueError, match="tokens must be at least 1, got 0"):
        Bottleneck(WIDTHS, dim=4, tokens=0)
    with pytest.raises(ValueError, match="'text' has 7 tokens, this fusion takes at most 6"):
        TokenEncoder({"text": 3}, dim=4, max_tokens=6)({"text": torch.zeros(1, 7, 3)})


@pytest.mark.parametrize("name", ["late-average", "late-stack"])
def test_late_fusions_give_probabilities(name: str) -> None:
    fused = made(CASES[name])(drawn(CASES[name]), gaps()).detach().numpy()
    assert (fused > 0).all()
    close(fused.sum(axis=1), 1)
