"""`trivium align` from tables to a space that searches: real encoders, pictures and sounds made on the spot."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trivium.encoders.base import Features, Modality, unit_rows
from trivium.fusion.projections.head import HeadInput
from trivium.fusion.projections.training import Recipe
from trivium.pipeline.align.alignment import AlignmentError, Plan, align
from trivium.pipeline.align.pairs import Material, Pairs
from trivium.pipeline.align.validation import calibrate
from trivium.pipeline.cli.main import main
from trivium.pipeline.collection import Collection
from trivium.pipeline.search.query import QueryError
from trivium.pipeline.space.config import SpaceError
from trivium.pipeline.space.folder import check_target
from trivium.pipeline.space.joint import load_space

POOLED = (HeadInput("pooled"),)
N = 300


def material(*twos: tuple[Modality, Modality], held_out: float = 0.3) -> Material:
    items: dict[Modality, list[str]] = {m: [str(number) for number in range(N)] for two in twos for m in two}
    rows = np.stack([np.arange(N)] * 2, axis=1)
    pairs = Pairs(rows=rows, weights=np.ones(N), is_held_out=np.arange(N) < held_out * N)
    return Material(items=items, pairs=dict.fromkeys(twos, pairs))


def features(*modalities: Modality) -> dict[Modality, Features]:
    random = np.random.default_rng(0)
    hidden = random.normal(size=(N, 8))
    widths: dict[Modality, int] = {"text": 12, "image": 20, "audio": 16}
    return {
        m: Features(
            pooled=(hidden @ random.normal(size=(8, widths[m])) + 0.1 * random.normal(size=(N, widths[m]))).astype(
                np.float32
            )
        )
        for m in modalities
    }


def plan(*modalities: Modality, method: str = "closed-form", **recipe: int) -> Plan:
    options = {"dim": 12, "members": 1, "hidden": 0, "epochs": 3, "batch_pairs": 128, **recipe}
    return Plan(inputs=dict.fromkeys(modalities, POOLED), method=method, recipe=Recipe(**options))  # type: ignore[arg-type]


def test_heads_are_given_all_layers() -> None:
    """Unless inputs are named. What only an inner layer knows is found then."""
    given = features("text", "image")
    told = {
        **given,
        "image": Features(pooled=given["image"].pooled[:, :1], layers={"inner": given["image"].pooled[:, 1:]}),
    }
    whole = align(None, material(("text", "image")), told, Plan(method="closed-form", recipe=Recipe(dim=12)))  # type: ignore[arg-type]
    named = align(
        None,  # type: ignore[arg-type]
        material(("text", "image")),
        told,
        Plan(method="closed-form", recipe=Recipe(dim=12), inputs={"image": (HeadInput("pooled"),)}),
    )
    assert [each.name for each in whole.heads["image"].inputs] == ["pooled", "inner"]
    assert [each.name for each in named.heads["image"].inputs] == ["pooled"]
    assert whole.recall["text->image"]["R@1"] > 0.9 > named.recall["text->image"]["R@1"]


@pytest.mark.parametrize("method", ["closed-form", "trained"])
def test_held_out_pairs_are_found(method: str) -> None:
    found = align(
        None,  # type: ignore[arg-type]
        material(("text", "image")),
        features("text", "image"),
        plan("text", "image", method=method),
    )
    assert found.recall["text->image"]["R@10"] > 0.8  # of 90; chance is 0.11
    assert found.pairs == {"text-image": (210, 90)}
    for head, width in zip(found.heads.values(), (12, 20), strict=True):
        rows = head(Features(pooled=np.random.default_rng(1).normal(size=(3, width)).astype(np.float32)))
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)


def test_modalities_meet_through_a_third() -> None:
    of = features("text", "image", "audio")
    found = align(
        None,  # type: ignore[arg-type]
        material(("text", "image"), ("text", "audio")),
        of,
        plan("text", "image", "audio"),
    )
    scores = found.heads["image"](of["image"])[:90] @ found.heads["audio"](of["audio"])[:90].T
    assert ((scores > np.diag(scores)[:, np.newaxis]).sum(axis=1) < 10).mean() > 0.6
    assert ("image", "audio") in found.relevance.of_pair  # from the background, for want of pairs
    told = align(
        None,  # type: ignore[arg-type]
        material(("text", "image"), ("text", "audio")),
        of,
        replace(plan("text", "image", "audio"), pseudo_share=0),
    )
    assert set(found.pairs) - set(told.pairs) == {"image-audio (by like texts)"}
    assert found.pairs["image-audio (by like texts)"][0] >= 210  # each with itself, at least


def test_what_cannot_be_aligned_is_told() -> None:
    of = features("text", "image", "audio")
    kept = Plan(inputs={"text": POOLED, "image": POOLED}, kept=("audio",))
    with pytest.raises(AlignmentError, match=r"belongs to what is kept \(audio\)"):
        align(None, material(("text", "image")), features("text", "image"), kept)  # type: ignore[arg-type]
    with pytest.raises(AlignmentError, match="no pairs of two modalities"):
        align(None, Material(items={}, pairs={}), of, plan("text", "image"))  # type: ignore[arg-type]


def test_calibration_of_any_to_any() -> None:
    random = np.random.default_rng(0)
    texts = unit_rows(random.normal(size=(100, 8)))
    vectors: dict[Modality, np.ndarray] = {
        "text": texts,
        "image": unit_rows(texts[:50] + 0.05 * random.normal(size=(50, 8))),
    }
    rows = np.array([(number, number % 50) for number in range(100)])  # two texts a picture
    found = calibrate(vectors, {("text", "image"): rows}, seed=0)
    assert set(found.of_pair) == {(a, b) for a in ("text", "image") for b in ("text", "image")}
    said = found.probabilities("text", "image", np.array([0.2, 0.99]), 50)
    assert said is not None
    assert said[0] < 0.1 < said[1]


def test_folders_that_are_no_spaces_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_text("")
    with pytest.raises(SpaceError, match="is no space"):
        check_target(tmp_path)
    with pytest.raises(SpaceError, match="is no space"):
        check_target(tmp_path / "photo.jpg")
    check_target(tmp_path / "new")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of one colour, and texts that name it; one row is bad."""
    folder = tmp_path_factory.mktemp("colours")
    lines = ["text,image"]
    colours = {"red": (220, 20, 20), "green": (20, 160, 30), "blue": (20, 40, 220), "yellow": (240, 220, 30)}
    random = np.random.default_rng(0)
    for number in range(40):
        name, colour = list(colours.items())[number % 4]
        pixels = np.clip(random.normal(colour, 20, (64, 64, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        lines.append(f"a {name} picture,{number}.png")
    lines.append("a lost picture,lost.png")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder / "table.csv"


@pytest.mark.weights
def test_a_space_is_made_and_used(
    weights: dict[str, Path], cache: Path, table: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    del cache, weights  # features of its own; weights would be fetched anew, so the real cache is not replaced
    target = tmp_path / "space"
    options = ["--epochs", "3", "--dim", "32", "--members", "1", "--hidden", "8", "--validation", "0.25"]
    status, out, err = run("align", str(table), "--out", str(target), *options, "--json")
    told = json.loads(out)
    assert status == 0
    assert "1 rows left out" in err
    assert told["pairs"]["text-image"]["trained"] + told["pairs"]["text-image"]["held_out"] == 40
    assert {file.name for file in target.iterdir()} >= {"space.json", "card.md", "training.json", "text.safetensors"}
    space = load_space(target)
    assert space.space.dim == 32
    assert space.modalities == ("text", "image")
    with Collection.open(tmp_path / "c", space=target) as collection:
        collection.add([table.parent])
        hits = collection.search(text="a blue picture", only="image", k=3)
        assert [int(Path(hit.path).stem) % 4 for hit in hits] == [2, 2, 2]
    # The same seed, the same heads.
    again = tmp_path / "again"
    assert run("align", str(table), "--out", str(again), *options)[0] == 0
    assert (again / "image.safetensors").read_bytes() == (target / "image.safetensors").read_bytes()


@pytest.mark.weights
def test_the_space_that_ships_knows_what_is_relevant(weights: dict[str, Path], table: Path, tmp_path: Path) -> None:
    with Collection.open(tmp_path / "c", space="trivium-base") as collection:
        collection.add([table.parent / f"{number}.png" for number in range(8)])
        hits = collection.search(text="a blue picture", k=8)
        assert all(hit.relevance is not None and 0 <= hit.relevance <= 1 for hit in hits)
        assert [hit.relevance for hit in hits] == sorted((hit.relevance or 0 for hit in hits), reverse=True)
        assert collection.search(text="qzxv wkjh", min_relevance=0.5) == []
    with Collection.open(tmp_path / "d", space="trivium-labels") as collection:
        collection.add([table.parent / "0.png"])
        assert collection.search(text="red")[0].relevance is None
        with pytest.raises(QueryError, match="cannot tell what is relevant"):
            collection.search(text="red", min_relevance=0.5)


def test_usage(tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, message in (
        (["--weights", "1,2"], "--weights: 2 for 1 tables"),
        (["--keep", "smell"], "--keep smell: the encoders are for"),
        (["--encoders", "text=nose"], "unknown backbone 'nose'"),
        (["--encoders", "text=aisfx"], "is for audio, not for text"),
    ):
        assert main(["align", str(table), "--out", str(tmp_path / "s"), *options]) in (1, 2)
        assert message in capsys.readouterr().err
