"""What backbones say: inner layers against hooks on the networks' own modules, the rest against the slow way."""

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import nn

from trivium.encoders import BACKBONES, Backbone, DecodeError, build_backbone, unit_rows
from trivium.encoders.audio import log_mel
from trivium.encoders.base import IMAGE_GROUPS, IMAGE_LAYERS, TEXT_LAYERS, TEXT_MAXIMUM, TEXT_STATES
from trivium.encoders.decoding import pictures as image_decoding
from trivium.encoders.image.efficientnet import build_efficientnet_lite0
from trivium.encoders.image.fit import MOST_PIXELS_LONG, Fit
from trivium.encoders.networks.conversions import AISFX_HEADS
from trivium.encoders.networks.weights import WEIGHTS, fetch
from trivium.encoders.text.transformer import build_minilm

pytestmark = pytest.mark.weights

# A batch of another size takes another path through the matrix product: float32 sums in another order.
BATCH = 1e-5


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Batches are small here: more threads only wait for each other when the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def backbones(weights: dict[str, Path]) -> dict[str, Backbone]:
    return {name: build_backbone(name) for name in BACKBONES}


@pytest.fixture
def minilm(backbones: dict[str, Backbone]) -> Backbone:
    return backbones["minilm-l6"]


@pytest.fixture
def efficientnet(backbones: dict[str, Backbone]) -> Backbone:
    return backbones["efficientnet-lite0"]


@pytest.fixture
def aisfx(backbones: dict[str, Backbone]) -> Backbone:
    return backbones["aisfx"]


def pooled(backbone: Backbone, *items: Any) -> NDArray[np.float32]:
    return backbone.features([backbone.prepare(item) for item in items]).pooled


@pytest.mark.parametrize("name", BACKBONES)
def test_width_and_modality_are_as_registered(backbones: dict[str, Backbone], name: str) -> None:
    backbone = backbones[name]
    assert (backbone.dim, backbone.modality) == (BACKBONES[name].dim, BACKBONES[name].modality)
    nothing = backbone.features([])
    assert nothing.pooled.shape == (0, backbone.dim)
    assert all(scores.shape[0] == 0 for scores in nothing.logits.values())


# MiniLM

TEXTS = [
    "A dog runs along the beach.",
    "A puppy is playing in the sand by the sea.",
    "The central bank raised interest rates again.",
    "dog",
    "rain " * 300,
]


def test_related_sentences_are_closer(minilm: Backbone) -> None:
    found = unit_rows(pooled(minilm, *TEXTS[:3]))
    assert found[0] @ found[1] > 0.4
    assert found[0] @ found[2] < 0.2


def test_text_batches_and_padding_change_nothing(minilm: Backbone) -> None:
    together = pooled(minilm, *TEXTS)
    alone = np.concatenate([pooled(minilm, text) for text in TEXTS])
    backwards = pooled(minilm, *reversed(TEXTS))[::-1]
    assert together.shape == (5, 384)
    assert together.dtype == np.float32
    assert_allclose(together, alone, atol=BATCH)
    assert_allclose(together, backwards, atol=BATCH)


def test_long_text_is_cut_at_256_tokens(minilm: Backbone) -> None:
    start = "word " * 254  # and the two that frame every text
    ids = minilm.prepare(start)
    assert ids.shape == (256,)
    assert_array_equal(minilm.prepare(start + "nothing of this is seen"), ids)
    assert len(minilm.prepare("word " * 253)) == 255
    assert len(minilm.prepare("x" * 10_000_000)) <= 256


@pytest.mark.parametrize("text", ["", " \n\t "])
def test_blank_text(minilm: Backbone, text: str) -> None:
    with pytest.raises(DecodeError, match="the text is empty"):
        minilm.prepare(text)


@pytest.mark.parametrize("item", [b"bytes", None, 5])
def test_text_must_be_a_string(minilm: Backbone, item: object) -> None:
    with pytest.raises(TypeError, match=f"a text item must be a str, got {type(item).__name__}"):
        minilm.prepare(item)


@pytest.mark.parametrize("text", ["🎉🎉🎉", "\u200b", "\x00", "日本語のテキスト", "a" * 500])
def test_odd_texts_have_finite_vectors(minilm: Backbone, text: str) -> None:
    assert np.isfinite(pooled(minilm, text)).all()


def test_text_with_a_lone_surrogate(minilm: Backbone) -> None:
    assert np.isfinite(pooled(minilm, "caf\udce9")).all()


# EfficientNet-Lite0


def drawn(seed: int, width: int = 300, height: int = 200) -> Image.Image:
    """A picture of random ellipses."""
    random = np.random.default_rng(seed)
    made = Image.new("RGB", (width, height), tuple(random.integers(0, 256, 3).tolist()))
    pen = ImageDraw.Draw(made)
    for _ in range(6):
        x, y = int(random.integers(0, width)), int(random.integers(0, height))
        pen.ellipse((x, y, x + width // 3, y + height // 3), fill=tuple(random.integers(0, 256, 3).tolist()))
    return made


def test_picture_features(efficientnet: Backbone) -> None:
    features = efficientnet.features([efficientnet.prepare(drawn(seed)) for seed in range(3)])
    assert features.pooled.shape == (3, 1280)
    assert features.pooled.dtype == np.float32
    assert set(features.logits) == {"imagenet"}
    scores = features.logits["imagenet"]
    assert scores.shape == (3, 1000)
    powers = np.exp(scores.astype(np.float64))
    assert_allclose((powers / powers.sum(axis=1, keepdims=True)).sum(axis=1), 1.0)
    assert len({row.argmax() for row in features.pooled}) > 1
    assert np.abs(features.pooled[0] - features.pooled[1]).max() > 0.1


def test_picture_batches_change_nothing(efficientnet: Backbone) -> None:
    batch = [efficientnet.prepare(drawn(seed)) for seed in range(3)]
    together, backwards = efficientnet.features(batch), efficientnet.features(batch[::-1])
    alone = [efficientnet.features([item]) for item in batch]
    assert_allclose(together.pooled, np.concatenate([one.pooled for one in alone]), atol=1e-4)
    assert_allclose(together.pooled, backwards.pooled[::-1], atol=1e-4)
    # Scores reach about 10, hence ten times the tolerance of the features.
    assert_allclose(together.logits["imagenet"], np.concatenate([one.logits["imagenet"] for one in alone]), atol=1e-3)


def test_a_picture_may_be_given_in_any_way(efficientnet: Backbone, tmp_path: Path) -> None:
    made = drawn(7)
    path = tmp_path / "drawn.png"
    made.save(path)
    expected = efficientnet.prepare(made)
    assert expected.shape == (3, 224, 224)
    assert expected.dtype == np.uint8
    with Image.open(path) as opened:
        for item in (path, str(path), path.read_bytes(), np.asarray(made), opened):
            assert_array_equal(efficientnet.prepare(item), expected)


def test_the_whole_picture_is_squeezed_to_a_square(efficientnet: Backbone) -> None:
    halves = np.zeros((60, 800, 3), np.uint8)
    halves[:, :400, 0] = 255
    found = efficientnet.prepare(halves)
    assert (found[0, :, :100] == 255).all()
    assert (found[0, :, 124:] == 0).all()
    assert (found[1:] == 0).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (224, 224)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "1"])
def test_pictures_of_any_size_and_mode(efficientnet: Backbone, size: tuple[int, int], mode: str) -> None:
    assert efficientnet.prepare(Image.new(mode, size)).shape == (3, 224, 224)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 5), np.uint8), r"must be uint8 of shape \(h, w, 3\), got uint8 \(5, 5\)"),
        (np.zeros((5, 5, 4), np.uint8), r"got uint8 \(5, 5, 4\)"),
        (np.zeros((5, 5, 3), np.float32), r"got float32 \(5, 5, 3\)"),
    ],
)
def test_arrays_of_another_kind(efficientnet: Backbone, array: NDArray[Any], message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        efficientnet.prepare(array)


def test_picture_with_too_many_pixels(efficientnet: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_decoding, "MAX_PIXELS", 100)
    with pytest.raises(DecodeError, match="too many pixels: 11 x 10, the limit is 100"):
        efficientnet.prepare(Image.new("RGB", (11, 10)))


@pytest.mark.parametrize("item", [np.zeros((0, 5, 3), np.uint8), Image.new("RGB", (0, 0)), Image.new("I", (0, 5))])
def test_picture_without_pixels(efficientnet: Backbone, item: Any) -> None:
    with pytest.raises(DecodeError):
        efficientnet.prepare(item)


def test_opened_picture_that_is_truncated(efficientnet: Backbone) -> None:
    buffer = io.BytesIO()
    drawn(1).convert("L").save(buffer, "PNG")
    opened = Image.open(io.BytesIO(buffer.getvalue()[:-500]))
    with pytest.raises(DecodeError, match="truncated"):
        efficientnet.prepare(opened)


# aiSFX

RATE = 44_100


def noise(count: int, seed: int = 0) -> NDArray[np.float32]:
    made: NDArray[np.float32] = 0.2 * np.random.default_rng(seed).standard_normal(count, dtype=np.float32)
    return made


def sweep(count: int) -> NDArray[np.float32]:
    """A tone that rises from 50 Hz to 15 kHz."""
    times = np.arange(count) / RATE
    made: NDArray[np.float32] = np.sin(2 * np.pi * (50 + 15_000 * times / times[-1] / 2) * times).astype(np.float32)
    return made


@pytest.mark.parametrize("make", [noise, sweep])
@pytest.mark.parametrize("count", [500, 60_000, 220_500])
def test_log_mel_equals_the_reference(
    aisfx: Backbone,
    reference: Callable[[str], ModuleType],
    make: Callable[[int], NDArray[np.float32]],
    count: int,
) -> None:
    sound = make(count)
    expected = reference("log_mel").log_mel_blocks(sound.astype(np.float64))
    found = aisfx.prepare((sound, RATE))
    assert found.dtype == np.float32
    # The logarithm lifts the float32 rounding of near-empty bands; values lie in 0 to 1.
    assert_allclose(found, expected, atol=1e-4)
    assert expected.max() > 0.1


@pytest.mark.parametrize("frames", [1, 7, 216])
def test_long_sounds_are_cut_without_a_seam(aisfx: Backbone, monkeypatch: pytest.MonkeyPatch, frames: int) -> None:
    sound = noise(220_500)  # 216 frames
    whole = aisfx.prepare((sound, RATE))
    monkeypatch.setattr(log_mel, "FRAMES_PER_PASS", frames)
    assert_allclose(aisfx.prepare((sound, RATE)), whole, atol=1e-6)


def test_the_callers_waveform_is_left_alone(aisfx: Backbone) -> None:
    for dtype in (np.float32, np.float64):
        sound = noise(5000).astype(dtype)
        before = sound.copy()
        aisfx.prepare((sound, 22_050))
        np.testing.assert_array_equal(sound, before)


@pytest.mark.parametrize(
    ("count", "blocks"),
    [
        (1, 1),
        (RATE, 1),
        (1024 * 99, 1),
        (1024 * 149 - 1, 1),
        (1024 * 149, 2),
        (1024 * 199, 3),
        (RATE * 10, 7),
    ],
)
def test_number_of_blocks(aisfx: Backbone, count: int, blocks: int) -> None:
    """Frames begin every 1,024 samples, from sample 0; a block is 100 frames, the next one begins 50 later."""
    assert aisfx.prepare((noise(count), RATE)).shape == (blocks, 100, 96)


@pytest.mark.parametrize("count", [1, 10_000, RATE * 5])
def test_silence_is_finite(aisfx: Backbone, count: int) -> None:
    blocks = aisfx.prepare((np.zeros(count, np.float32), RATE))
    assert (blocks == 0).all()
    features = aisfx.features([blocks])
    assert np.isfinite(features.pooled).all()
    assert all(np.isfinite(scores).all() for scores in features.logits.values())


def test_loudness_changes_nothing(aisfx: Backbone) -> None:
    sound = noise(50_000)
    for factor in (1e-4, 0.5, 1000.0):
        assert_allclose(aisfx.prepare((sound * np.float32(factor), RATE)), aisfx.prepare((sound, RATE)), atol=1e-5)


def test_very_loud_sound_is_finite(aisfx: Backbone) -> None:
    assert np.isfinite(aisfx.prepare((np.full(4000, 3e38, np.float32), 22_050))).all()


@pytest.mark.parametrize("rate", [1000, 8000, 22_050, 44_099, 44_101, 48_000, 96_000, 192_000])
def test_any_rate_gives_the_same_sound(aisfx: Backbone, rate: int) -> None:
    """A tone of 300 Hz is the same mel picture at any rate that holds it."""
    times = np.arange(rate) / rate
    found = aisfx.prepare((np.sin(2 * np.pi * 300 * times).astype(np.float32), rate))
    expected = aisfx.prepare((np.sin(2 * np.pi * 300 * np.arange(RATE) / RATE).astype(np.float32), RATE))
    assert found.shape == expected.shape == (1, 100, 96)
    middle = slice(5, 38)  # the ends ring
    assert (found[0, middle].argmax(axis=1) == expected[0, middle].argmax(axis=1)).all()
    assert_allclose(found[0, middle].max(axis=1), expected[0, middle].max(axis=1), atol=0.02)


def test_sound_features_are_the_mean_over_blocks(aisfx: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    # So that a clip is cut across passes.
    monkeypatch.setattr(aisfx._front_end, "_blocks_per_pass", 3)  # type: ignore[attr-defined]
    blocks = aisfx.prepare((noise(1024 * 299), RATE))
    assert len(blocks) == 5
    clip = aisfx.features([blocks])
    alone = [aisfx.features([block[np.newaxis]]) for block in blocks]
    assert_allclose(clip.pooled[0], np.mean([one.pooled[0] for one in alone], axis=0), atol=BATCH)
    assert set(clip.logits) == set(AISFX_HEADS)
    for head, classes in AISFX_HEADS.items():
        assert clip.logits[head].shape == (1, classes)
        expected = np.mean([one.logits[head][0] for one in alone], axis=0)
        assert_allclose(clip.logits[head][0], expected, atol=1e-4)  # scores reach about 10


def test_sound_batches_change_nothing(aisfx: Backbone) -> None:
    batch = [aisfx.prepare((noise(count, seed), RATE)) for seed, count in enumerate((1000, 160_000, 120_000))]
    together, backwards = aisfx.features(batch), aisfx.features(batch[::-1])
    alone = [aisfx.features([clip]) for clip in batch]
    assert together.pooled.shape == (3, 512)
    assert together.pooled.dtype == np.float32
    assert_allclose(together.pooled, np.concatenate([one.pooled for one in alone]), atol=BATCH)
    assert_allclose(together.pooled, backwards.pooled[::-1], atol=BATCH)
    for head, scores in together.logits.items():
        assert_allclose(scores, np.concatenate([one.logits[head] for one in alone]), atol=1e-4)


def test_a_sound_may_be_given_in_any_way(aisfx: Backbone, tmp_path: Path) -> None:
    stereo = np.stack([noise(30_000, 1), noise(30_000, 2)], axis=1)
    path = tmp_path / "noise.wav"
    soundfile.write(path, stereo, RATE, subtype="FLOAT")
    expected = aisfx.prepare((stereo, RATE))
    for item in (path, str(path), path.read_bytes(), (stereo.mean(axis=1), RATE)):
        assert_array_equal(aisfx.prepare(item), expected)


def test_integers_are_samples_too(aisfx: Backbone) -> None:
    sound = noise(30_000)
    whole = np.round(sound * 2**20).astype(np.int32)
    assert_allclose(aisfx.prepare((whole, RATE)), aisfx.prepare((sound, RATE)), atol=1e-3)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ((np.zeros(0), RATE), r"shape \(s,\) or \(s, channels\), none 0, got \(0,\)"),
        ((np.zeros((0, 2)), RATE), r"none 0, got \(0, 2\)"),
        ((np.zeros((5, 2, 2)), RATE), r"got \(5, 2, 2\)"),
        ((np.float32(1), RATE), r"got \(\)"),
        ((np.array([0, np.nan]), RATE), "the sound holds NaN or infinity"),
        ((np.array([0, np.inf]), RATE), "the sound holds NaN or infinity"),
        ((np.zeros(100), 999), r"100 samples at 999 Hz; known are \(1000, 768000\) Hz and 1800.0 s"),
        ((np.zeros(100), 768_001), "100 samples at 768001 Hz"),
        ((np.zeros(1_800_001, np.int8), 1000), "1800001 samples at 1000 Hz"),
    ],
)
def test_waveforms_that_are_none(aisfx: Backbone, item: tuple[Any, int], message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        aisfx.prepare(item)


# All of them


def test_damaged_items_are_decode_errors(efficientnet: Backbone, aisfx: Backbone, tmp_path: Path) -> None:
    path = tmp_path / "notes.jpg"
    path.write_text("a text named like a picture")
    for item in (path, path.read_bytes()):
        with pytest.raises(DecodeError, match="not a picture"):
            efficientnet.prepare(item)
        with pytest.raises(DecodeError, match="not a sound"):
            aisfx.prepare(item)
    with pytest.raises(DecodeError, match="the file is gone"):
        efficientnet.prepare(tmp_path / "missing.jpg")


def test_preparing_in_threads(backbones: dict[str, Backbone]) -> None:
    """In fresh backbones, so that whatever is built on first use is built by several threads at once."""
    items: dict[str, list[Any]] = {
        "minilm-l6": [*TEXTS, *("word " * count for count in range(1, 12))],
        "efficientnet-lite0": [drawn(seed) for seed in range(16)],
        "aisfx": [(noise(20_000 + seed, seed), 22_050 + seed % 3) for seed in range(16)],
    }
    for name, given in items.items():
        fresh = build_backbone(name)
        with ThreadPoolExecutor(8) as pool:
            threaded = list(pool.map(fresh.prepare, given))
        for found, item in zip(threaded, given, strict=True):
            assert_array_equal(found, backbones[name].prepare(item))


@pytest.mark.parametrize("name", BACKBONES)
def test_features_keep_no_gradient_and_no_state(backbones: dict[str, Backbone], name: str) -> None:
    item: Any = {"minilm-l6": "a text", "efficientnet-lite0": drawn(1), "aisfx": (noise(5000), RATE)}[name]
    prepared = backbones[name].prepare(item)
    first = backbones[name].features([prepared]).pooled
    assert torch.is_grad_enabled()
    assert_array_equal(backbones[name].features([prepared]).pooled, first)


@pytest.mark.parametrize("mode", ["squash", "shortest", "longest"])
@pytest.mark.parametrize("shape", [(3_000_000, 1, 3), (1, 3_000_000, 3)])
def test_long_strips_are_thinned_before_they_are_resized(
    shape: tuple[int, int, int], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made narrow first, one of 60 million pixels took 40 GB."""
    from torchvision.transforms.v2 import functional

    lengths: list[int] = []
    resize = functional.resize

    def watched(pictures: Any, *arguments: Any, **options: Any) -> Any:
        lengths.append(max(pictures.shape[-2:]))
        return resize(pictures, *arguments, **options)

    monkeypatch.setattr(functional, "resize", watched)
    made = Fit(side=224, mode=mode).of_pixels(np.full(shape, 77, np.uint8))
    assert made.shape == (3, 224, 224)
    assert made.max() == 77
    assert max(lengths) <= MOST_PIXELS_LONG


@pytest.mark.weights
def test_of_a_picture(weights: dict[str, Path]) -> None:
    backbone = build_backbone("efficientnet-lite0")
    prepared = [np.random.default_rng(seed).integers(0, 256, (3, 224, 224), np.uint8) for seed in range(2)]
    network: Any = build_efficientnet_lite0(fetch(WEIGHTS["efficientnet-lite0"]))
    seen: dict[int, torch.Tensor] = {}

    def keep(group: int) -> Any:
        def hook(_: nn.Module, __: Any, output: torch.Tensor) -> None:
            seen[group] = output

        return hook

    for group in IMAGE_GROUPS.values():
        network.model.blocks[group].register_forward_hook(keep(group))
    with torch.inference_mode():  # timm's own way through, not the one that the export takes
        network.model((torch.from_numpy(np.stack(prepared)).float() - 127) / 128)
    found = backbone.features(prepared).layers
    assert {layer: rows.shape[1] for layer, rows in found.items()} == dict(IMAGE_LAYERS)
    for layer, group in IMAGE_GROUPS.items():
        of_positions = seen[group].flatten(2).numpy()  # (n, channels, positions)
        expected = np.concatenate([of_positions.mean(axis=2), of_positions.max(axis=2)], axis=1)
        assert_allclose(found[layer], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.weights
def test_of_texts_of_different_lengths(weights: dict[str, Path]) -> None:
    """Padding counts for nothing, neither in a mean nor in a maximum."""
    backbone = build_backbone("minilm-l6")
    texts = ["dog", "A bird singing in the early morning, and nobody there to hear it."]
    prepared = [backbone.prepare(text) for text in texts]
    network = build_minilm(fetch(WEIGHTS["minilm-l6"])).text
    found = backbone.features(prepared).layers
    assert {layer: rows.shape[1] for layer, rows in found.items()} == dict(TEXT_LAYERS)
    for row, ids in enumerate(prepared):
        with torch.inference_mode():  # alone
            tokens = torch.from_numpy(ids)[None]
            states = network.states(tokens, torch.ones_like(tokens))
        for layer, place in TEXT_STATES.items():
            assert_allclose(found[layer][row], states[place][0].numpy().mean(axis=0), atol=1e-4)
        assert_allclose(found[TEXT_MAXIMUM][row], states[-1][0].numpy().max(axis=0), atol=1e-4)
