"""open_clip's models in our hands against open_clip itself, on a tiny model."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from numpy.typing import NDArray
from open_clip.pretrained import _PRETRAINED
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file

from assets import ASSETS
from trivium.encoders import DecodeError, WeightsError
from trivium.encoders.base import Modality, unit_rows
from trivium.encoders.clip import model as ours
from trivium.encoders.clip.facts import ClipFacts, fit_of
from trivium.encoders.clip.model import OpenClip
from trivium.encoders.devices import PLAIN
from trivium.encoders.networks.onnx_runtime import OnnxNetwork
from trivium.encoders.networks.torch_runtime import TorchNetwork

TEXTS = ["a photo of a cat", "dog", "Ein Haus am See &amp; ein Boot", "a long caption " * 40]
TinyClip = Callable[..., str]
BATCH = 1e-5  # float32 sums in another order
FACTS = ClipFacts(
    name="tiny",
    pretrained="",
    dim=16,
    weights_sha256="",
    side=32,
    mean=(0, 0, 0),
    std=(1, 1, 1),
    interpolation="bicubic",
    resize_mode="shortest",
    fill_color=0,
    context_length=77,
    is_plain_bpe=True,
    can_cut=True,
    config_sha256="",
    image_bytes=0,
    text_bytes=0,
)


def open_clips_own(reference: str) -> Any:
    name, _, checkpoint = reference.removeprefix("open-clip:").partition("/")
    return open_clip.create_model(name, pretrained=checkpoint).eval()


def texts_by_open_clip(model: Any, texts: list[str]) -> NDArray[np.float32]:
    with torch.inference_mode():
        return np.asarray(model.encode_text(open_clip.get_tokenizer("tiny")(texts)).numpy())


def pooled(clip: OpenClip, modality: Modality, items: list[Any], **options: Any) -> NDArray[np.float32]:
    backbone = clip.backbone(modality, **options)
    return backbone.features(backbone.prepare_all(items)).pooled


def picture(height: int, width: int) -> NDArray[np.uint8]:
    with Image.open(ASSETS / "strawberry.jpg") as image:
        return np.array(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(
    "text",
    [
        {},
        {"custom": True},
        {"pool_type": "last", "custom": True},
        {"no_causal_mask": True, "custom": True},
        {"embed_cls": True, "pool_type": "last", "custom": True},
    ],
    ids=["clip", "custom", "last position", "not causal", "class token"],
)
def test_texts_are_open_clips(tiny_clip: TinyClip, text: dict[str, Any]) -> None:
    is_custom = text.pop("custom", False)
    reference = tiny_clip(text=text, custom_text=is_custom)
    clip = OpenClip(reference)
    assert clip.facts.can_cut == (not text)
    expected = texts_by_open_clip(open_clips_own(reference), TEXTS)
    np.testing.assert_allclose(pooled(clip, "text", TEXTS), expected, atol=BATCH)
    np.testing.assert_allclose(pooled(clip, "text", TEXTS, device=PLAIN), expected, atol=BATCH)


def test_a_cut_text_is_the_whole_one(tiny_clip: TinyClip) -> None:
    """A short text alone, cut to a few positions, has the vector that it has beside one that fills all 77."""
    clip = OpenClip(tiny_clip())
    together, alone = pooled(clip, "text", TEXTS), pooled(clip, "text", TEXTS[1:2])
    np.testing.assert_allclose(alone[0], together[1], atol=BATCH)
    seen: list[tuple[int, ...]] = []
    backbone = clip.backbone("text")
    network = backbone._network  # type: ignore[attr-defined]
    backbone._network = lambda tokens: seen.append(tokens.shape) or network(tokens)  # type: ignore[attr-defined, func-returns-value]
    backbone.features(backbone.prepare_all(["dog"]))
    assert seen == [(1, 3)]


def test_the_same_pixels_give_open_clips_vector(tiny_clip: TinyClip) -> None:
    reference = tiny_clip()
    clip, own = OpenClip(reference), open_clips_own(reference)
    pixels = picture(32, 32)
    transform = image_transform_v2(PreprocessCfg(**own.visual.preprocess_cfg), is_train=False)
    with torch.inference_mode():
        expected = own.encode_image(transform(Image.fromarray(pixels)).unsqueeze(0)).numpy()
    np.testing.assert_allclose(pooled(clip, "image", [pixels]), expected, atol=BATCH)
    np.testing.assert_allclose(pooled(clip, "image", [pixels], device=PLAIN), expected, atol=BATCH)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("size", [(60, 100), (101, 67), (20, 33), (200, 30), (47, 47)])
def test_pictures_are_fitted_as_open_clip_does(mode: str, interpolation: str, size: tuple[int, int]) -> None:
    facts = dataclasses.replace(FACTS, resize_mode=mode, interpolation=interpolation, fill_color=90)
    cfg = PreprocessCfg(
        size=32, mean=(0,) * 3, std=(1,) * 3, resize_mode=mode, interpolation=interpolation, fill_color=90
    )
    pixels = picture(*size)
    expected = image_transform_v2(cfg, is_train=False)(Image.fromarray(pixels)).numpy() * 255
    found = fit_of(facts).of_pixels(pixels).astype(np.float32)
    assert found.shape == (3, 32, 32)
    difference = np.abs(found - expected)
    # Pillow and torchvision round and clip to 8 bits between the two directions, each in its own way: up to 6 seen at
    # a sharp edge.
    assert difference.max() <= 8
    assert difference.mean() < 0.3


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 2), (3, 400)])
def test_strips_and_points(size: tuple[int, int]) -> None:
    """The crop is the middle; a strip is not scaled as a whole, which would take gigabytes."""
    pixels = np.zeros((*size, 3), np.uint8)
    middle = tuple(slice(length // 2 - 5, length // 2 + 5) if length > 50 else slice(None) for length in size)
    pixels[middle] = 255
    assert fit_of(FACTS).of_pixels(pixels).min() == 255


def test_a_bad_item_is_told(tiny_clip: TinyClip) -> None:
    clip = OpenClip(tiny_clip())
    with pytest.raises(DecodeError, match="the text is empty"):
        clip.backbone("text").prepare(" \n")
    with pytest.raises(TypeError, match="a text item must be a str, got int"):
        clip.backbone("text").prepare(5)
    with pytest.raises(DecodeError, match=r"uint8 of shape \(h, w, 3\), got uint8 \(4, 4\)"):
        clip.backbone("image").prepare(np.zeros((4, 4), np.uint8))


@pytest.mark.parametrize("modality", ["text", "image"])
def test_int8_is_near(tiny_clip: TinyClip, modality: Modality) -> None:
    clip = OpenClip(tiny_clip())
    items: list[Any] = TEXTS if modality == "text" else [picture(60, 100), picture(40, 40) // 2]
    exact, quick = pooled(clip, modality, items), pooled(clip, modality, items, precision="int8")
    assert (unit_rows(exact) * unit_rows(quick)).sum(axis=1).min() > 0.99  # of weights of random noise in 8 bits
    assert not np.array_equal(exact, quick)


def test_the_revision_is_of_weights_and_config(tiny_clip: TinyClip, tmp_path: Path) -> None:
    reference = tiny_clip()
    first = OpenClip(reference).facts
    assert OpenClip(tiny_clip(seed=1)).facts.revision != first.revision
    assert OpenClip(tiny_clip("tiny2", text={"heads": 4})).facts.revision != first.revision
    tiny_clip()  # the first again
    moved = tmp_path / "elsewhere" / "tiny-0.pt"
    moved.parent.mkdir()
    os.rename(tmp_path / "tiny-0.pt", moved)
    again = OpenClip(f"open-clip:tiny/{moved}").facts
    assert (again.revision, again.space_name) == (first.revision, first.space_name)
    assert again.space_name == "open-clip:tiny/tiny-0"


def test_a_changed_checkpoint_is_seen(tiny_clip: TinyClip, tmp_path: Path) -> None:
    reference = tiny_clip()
    first = OpenClip(reference).facts.revision
    os.replace(tiny_clip(seed=1).partition("/")[2], tmp_path / "tiny-0.pt")
    assert OpenClip(reference).facts.revision != first


def test_a_checkpoint_that_rots_makes_no_vectors(tiny_clip: TinyClip) -> None:
    """Its times and size stay on a failing disk, and so do the facts and the revision; its graphs are not there yet."""
    reference = tiny_clip()
    OpenClip(reference)
    checkpoint = Path(reference.partition("/")[2])
    status = checkpoint.stat()
    data = bytearray(checkpoint.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 1000] = bytes(1000)
    checkpoint.write_bytes(data)
    os.utime(checkpoint, ns=(status.st_atime_ns, status.st_mtime_ns))
    for device in ("cpu", PLAIN):
        with pytest.raises(WeightsError, match=r"tiny-0.pt is not what it was when open-clip:tiny/.* was first used"):
            OpenClip(reference).backbone("text", device=device)


def test_facts_that_are_damaged_are_found_again(tiny_clip: TinyClip, cache: Path) -> None:
    """A digit that is another one would be another revision, and every collection refused."""
    reference = tiny_clip()
    first = OpenClip(reference).facts
    (kept,) = (cache / "open-clip").iterdir()
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    kept.write_text(kept.read_text().replace('"side": 32', '"side": 48'))
    assert OpenClip(reference).facts == first
    assert '"side": 32' in kept.read_text()


def test_facts_that_cannot_be_kept(tiny_clip: TinyClip, cache: Path) -> None:
    cache.mkdir()
    (cache / "open-clip").touch()
    with pytest.raises(WeightsError, match=r"cannot keep .*\.json in .*open-clip"):
        OpenClip(tiny_clip())


def test_safetensors(tiny_clip: TinyClip, tmp_path: Path) -> None:
    reference = tiny_clip()
    path = reference.partition("/")[2]
    state = {name: tensor.contiguous().clone() for name, tensor in torch.load(path, weights_only=True).items()}
    save_file(state, tmp_path / "tiny.safetensors")
    found = pooled(OpenClip(f"open-clip:tiny/{tmp_path / 'tiny.safetensors'}"), "text", TEXTS)
    np.testing.assert_array_equal(found, pooled(OpenClip(reference), "text", TEXTS))


def test_what_is_in_the_cache_needs_no_torch(tiny_clip: TinyClip) -> None:
    reference = tiny_clip()
    pooled(OpenClip(reference), "text", TEXTS)
    script = (
        "import sys; from trivium.encoders.clip.model import OpenClip; "
        f"b = OpenClip({reference!r}).backbone('text'); "
        "assert b.features([b.prepare('a bird')]).pooled.shape == (1, 16); "
        "assert not {'torch', 'open_clip', 'torchvision', 'timm', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_tower_too_large_for_onnx_runs_in_torch(tiny_clip: TinyClip, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = OpenClip(tiny_clip())
    assert clip.facts.image_bytes < 200_000 < clip.facts.text_bytes  # the table of words is the most of it
    monkeypatch.setattr(ours, "GRAPH_BYTES", 200_000)
    assert isinstance(clip.backbone("image")._network, OnnxNetwork)  # type: ignore[attr-defined]
    assert isinstance(clip.backbone("text")._network, TorchNetwork)  # type: ignore[attr-defined]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("modality", ["text", "image"])
def test_towers_in_half_precision(tiny_clip: TinyClip, modality: Modality, dtype: torch.dtype) -> None:
    """As on a GPU, with all shapes fixed; the mean and deviation of pixels are not rounded."""
    clip = OpenClip(tiny_clip())
    architecture = clip._image_architecture() if modality == "image" else clip._text_architecture()
    half = TorchNetwork(architecture.build(), device=PLAIN, dtype=dtype, mode="graphs", longest=architecture.longest)
    backbone = clip.backbone(modality)
    items: list[Any] = TEXTS if modality == "text" else [picture(60, 100), picture(40, 40) // 2]
    exact = backbone.features(backbone.prepare_all(items)).pooled
    backbone._network = half  # type: ignore[attr-defined]
    rounded = backbone.features(backbone.prepare_all(items)).pooled
    least = {torch.float16: 0.99999, torch.bfloat16: 0.999}[dtype]
    assert (unit_rows(exact) * unit_rows(rounded)).sum(axis=1).min() > least
    assert not np.array_equal(exact, rounded)


def test_two_devices_have_a_copy_each(tiny_clip: TinyClip) -> None:
    clip = OpenClip(tiny_clip())
    networks = [clip.backbone("image", device=PLAIN)._network for _ in range(2)]  # type: ignore[attr-defined]
    first, second = (next(network._module.parameters()).data_ptr() for network in networks)
    assert first != second


@pytest.fixture
def tag(tiny_clip: TinyClip, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Give the model a pretrained tag, whose weights are a file here."""

    def make(name: str = "own", **cfg: Any) -> str:
        reference = tiny_clip()
        monkeypatch.setitem(_PRETRAINED, "tiny", {name: {"file": reference.partition("/")[2], **cfg}})
        return f"open-clip:tiny/{name}"

    return make


def test_a_tag_brings_its_preprocessing(tag: Callable[..., str]) -> None:
    facts = OpenClip(
        tag(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2), interpolation="bilinear", resize_mode="squash")
    ).facts
    assert (facts.mean, facts.interpolation, facts.resize_mode) == ((0.5, 0.4, 0.3), "bilinear", "squash")
    assert facts.space_name == "open-clip:tiny/own"


def test_weights_of_the_quick_gelu_get_it(tag: Callable[..., str]) -> None:
    """open_clip only warns, for `ViT-B-32/openai` among others, and gives vectors that are off."""
    plain = pooled(OpenClip(tag()), "text", TEXTS)
    quick = pooled(OpenClip(tag("quick", quick_gelu=True)), "text", TEXTS)
    expected = open_clip.create_model("tiny", pretrained=_PRETRAINED["tiny"]["quick"]["file"], force_quick_gelu=True)
    np.testing.assert_allclose(quick, texts_by_open_clip(expected.eval(), TEXTS), atol=BATCH)
    assert np.abs(plain - quick).max() > 1e-4


def refusal(reference: str) -> str:
    with pytest.raises(WeightsError) as caught:
        OpenClip(reference)
    return str(caught.value)


@pytest.mark.parametrize("reference", ["open-clip:", "open-clip:ViT-B-32", "open-clip:/x", "open-clip:ViT-B-32/"])
def test_half_a_reference(reference: str, cache: Path) -> None:
    assert refusal(reference) == (
        f"'{reference}' is no open_clip model: write open-clip:MODEL/PRETRAINED, or a path after /"
    )


def test_unknown_names(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "x.pt").touch()
    assert "no model 'ViT-B32', nearest are: ViT-B-32" in refusal(f"open-clip:ViT-B32/{tmp_path / 'x.pt'}")
    assert "no weights 'opanai' for ViT-B-32, known are: openai, laion400m_e31" in refusal("open-clip:ViT-B-32/opanai")
    assert "no weights 'folder/x.pt'" in refusal("open-clip:ViT-B-32/folder/x.pt")  # a path must be absolute


def test_no_network(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TRIVIUM_OFFLINE", "1")
    message = refusal("open-clip:ViT-B-32/openai")
    assert "open_clip cannot give the weights 'openai' of ViT-B-32, and TRIVIUM_OFFLINE forbids fetching" in message
    assert not constants.HF_HUB_OFFLINE  # as it was


def test_weights_of_a_plain_address_are_not_fetched_offline(
    tag: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reference = tag()
    cfg = _PRETRAINED["tiny"]["own"]
    weights = Path(cfg.pop("file"))
    cfg["url"] = "http://127.0.0.1:9/folder/weights.pt"
    monkeypatch.setenv("TRIVIUM_OFFLINE", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert f"TRIVIUM_OFFLINE forbids fetching them: run `trivium pull` where there is a network: no {tmp_path}" in (
        refusal(reference)
    )
    kept = tmp_path / ".cache" / "clip" / "weights.pt"
    kept.parent.mkdir(parents=True)
    weights.rename(kept)
    assert OpenClip(reference).facts.space_name == "open-clip:tiny/own"


@pytest.mark.parametrize("is_cached", [True, False])
def test_what_the_hubs_cache_has_is_not_asked_for(
    tag: Callable[..., str], monkeypatch: pytest.MonkeyPatch, is_cached: bool
) -> None:
    from huggingface_hub import constants

    reference, seen = tag(), []
    file = _PRETRAINED["tiny"]["own"]["file"]

    def download(cfg: Any) -> str:
        seen.append(constants.HF_HUB_OFFLINE)
        if constants.HF_HUB_OFFLINE and not is_cached:
            raise FileNotFoundError("not in the cache")
        return str(file)

    monkeypatch.setattr(open_clip, "download_pretrained", download)
    assert OpenClip(reference).facts.dim == 16
    assert seen == 2 * ([True] if is_cached else [True, False])  # for their hash, and to load them


def test_a_checkpoint_that_is_none(tiny_clip: TinyClip, tmp_path: Path) -> None:
    tiny_clip()
    assert "there is no checkpoint /none.pt" in refusal("open-clip:tiny//none.pt")
    (tmp_path / "x.npz").touch()
    assert "must end in .safetensors, .pt, .pth, .bin" in refusal(f"open-clip:tiny/{tmp_path / 'x.npz'}")
    for name in ("x.pt", "x.safetensors"):
        (tmp_path / name).write_bytes(b"no weights" * 100)
        assert f"{name} cannot be loaded as open_clip's tiny: " in refusal(f"open-clip:tiny/{tmp_path / name}")


def test_missing_and_unknown_tensors_are_listed(tiny_clip: TinyClip, tmp_path: Path) -> None:
    state = torch.load(tiny_clip().partition("/")[2], weights_only=True)
    state["surplus"] = state.pop("ln_final.bias")
    torch.save(state, tmp_path / "x.pt")
    message = refusal(f"open-clip:tiny/{tmp_path / 'x.pt'}")
    assert 'Missing key(s) in state_dict: "ln_final.bias"' in message
    assert 'Unexpected key(s) in state_dict: "surplus"' in message
    state["ln_final.bias"] = state.pop("surplus")[:7]
    torch.save(state, tmp_path / "x.pt")
    assert "size mismatch for ln_final.bias" in refusal(f"open-clip:tiny/{tmp_path / 'x.pt'}")


class Planted:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_checkpoint_is_never_unpickled(tiny_clip: TinyClip, tmp_path: Path) -> None:
    tiny_clip()
    torch.save({"state_dict": Planted(tmp_path / "ran")}, tmp_path / "x.pt")
    assert "cannot be loaded as open_clip's tiny" in refusal(f"open-clip:tiny/{tmp_path / 'x.pt'}")
    assert not (tmp_path / "ran").exists()


def test_without_open_clip(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    assert "open_clip is not installed" in refusal("open-clip:ViT-B-32/openai")
