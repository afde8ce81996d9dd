"""Modality dropout hides what it should, as often as it should, and never everything."""

import pytest
import torch

from trivium.fusion.networks.contract import drop_modalities


def dropped(share: float, *, rows: int = 4_000) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    presence = {"text": torch.ones(rows, dtype=torch.bool), "image": torch.arange(rows) % 2 == 0}
    return presence, drop_modalities(presence, share=share, generator=torch.Generator().manual_seed(3))


def test_a_share_of_what_could_go_goes() -> None:
    presence, left = dropped(0.3)
    both = presence["image"]
    # Of rows with both: a row that would lose both keeps both, so one goes with 0.3 * 0.7. 0.03: four deviations.
    assert (~left["text"][both]).float().mean().item() == pytest.approx(0.21, abs=0.03)
    assert (~left["image"][both]).float().mean().item() == pytest.approx(0.21, abs=0.03)


def test_nothing_appears_and_no_row_loses_everything() -> None:
    presence, left = dropped(0.9)
    assert not (left["image"] & ~presence["image"]).any()
    assert (left["text"] | left["image"]).all()
    assert left["text"][~presence["image"]].all()  # had nothing else


def test_no_share_no_change() -> None:
    presence, left = dropped(0.0)
    assert all(torch.equal(left[m], presence[m]) for m in presence)


def test_a_row_without_anything_stays_so() -> None:
    left = drop_modalities({"text": torch.tensor([False])}, share=0.5)
    assert not left["text"].any()


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_wrong_shares(share: float) -> None:
    with pytest.raises(ValueError, match=f"share must be at least 0 and below 1, got {share}"):
        drop_modalities({"text": torch.tensor([True])}, share=share)
