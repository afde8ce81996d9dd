"""CLAP's audio towers in our hands against open_clip itself; skipped where the installed open_clip has none."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from numpy.typing import NDArray

from trivium.encoders import DecodeError, WeightsError
from trivium.encoders.base import unit_rows
from trivium.encoders.clip.facts import SoundFacts
from trivium.encoders.clip.model import OpenClip
from trivium.encoders.clip.sounds import ClipMel
from trivium.encoders.devices import PLAIN
from trivium.encoders.networks.torch_runtime import TorchNetwork
from trivium.encoders.sandbox.streams import SoundStream

TinyClap = Callable[..., str]
Waveform = NDArray[np.float32]
SECOND = 48_000  # of samples: the blocks of the tiny model
FACTS = SoundFacts(
    rate_hz=SECOND,
    block_samples=SECOND,
    fft_samples=1024,
    hop_samples=480,
    mels=64,
    min_hz=50,
    max_hz=14_000,
    is_slaney=True,
)
SAME = 1e-4  # decibels of quiet frames are differences of large numbers


def noise(seconds: float, rate_hz: int = SECOND, *, seed: int = 0) -> Waveform:
    """Make noise that swells, of its own colour for each seed."""
    rng = np.random.default_rng(seed)
    count = round(seconds * rate_hz)
    spectrum = np.fft.rfft(rng.uniform(-1, 1, count)) * np.linspace(1, 0, count // 2 + 1) ** (1 + 3 * seed)
    sound = np.fft.irfft(spectrum, count)
    return np.asarray(sound / np.abs(sound).max() * 0.4 * np.linspace(0.1, 1, count), np.float32)


def open_clips_own(reference: str) -> Any:
    name, _, checkpoint = reference.removeprefix("open-clip:").partition("/")
    return open_clip.create_model(name, pretrained=checkpoint).eval()


def by_open_clip(model: Any, waveform: Waveform, rate_hz: int = SECOND) -> NDArray[np.float32]:
    """Return the embedding (d,) by open_clip's own preprocessing."""
    from open_clip.audio import audio_transform_v2

    ready = audio_transform_v2(model.audio.cfg, is_train=False)((torch.from_numpy(waveform)[None], rate_hz))
    batch = {"waveform": ready["waveform"][None], "longer": torch.tensor([[ready["longer"]]])}
    if "mel_fusion" in ready:
        batch["mel_fusion"] = ready["mel_fusion"][None]
    with torch.inference_mode():
        return np.asarray(model.encode_audio(batch)[0].numpy())


pytestmark = pytest.mark.filterwarnings(r"ignore:torch.meshgrid.*:UserWarning")


@pytest.mark.parametrize("fusion", [False, True])
def test_sounds_of_one_block_are_open_clips(tiny_clap: TinyClap, fusion: bool) -> None:
    reference = tiny_clap(enable_fusion=fusion)
    clip, own = OpenClip(reference), open_clips_own(reference)
    assert clip.facts.modalities == ("text", "audio")
    backbone = clip.backbone("audio")
    sounds = [
        (noise(1.0), SECOND),
        (noise(0.3, 44_100, seed=1), 44_100),
        (noise(0.999, 16_000, seed=2), 16_000),
        (noise(0.05, 8_000, seed=3), 8_000),
        (np.zeros(500, np.float32), SECOND),
        (noise(0.01, seed=1), SECOND),
    ]
    found = backbone.features([backbone.prepare(sound) for sound in sounds]).pooled
    expected = np.stack([by_open_clip(own, *sound) for sound in sounds])
    np.testing.assert_allclose(found, expected, atol=SAME)
    unlike = unit_rows(expected - expected.mean(axis=0))
    assert (unlike @ unlike.T - np.eye(len(sounds))).max() < 0.999  # the sounds can be told apart


def test_a_long_sound_is_the_mean_of_its_blocks(tiny_clap: TinyClap) -> None:
    """Blocks overlap by half, and the last ends where the sound ends."""
    reference = tiny_clap()
    own, backbone = open_clips_own(reference), OpenClip(reference).backbone("audio")
    sound = noise(2.2)
    starts = [0, SECOND // 2, SECOND, len(sound) - SECOND]
    expected = np.stack([by_open_clip(own, sound[start : start + SECOND]) for start in starts])
    prepared = backbone.prepare((sound, SECOND))
    np.testing.assert_allclose(backbone.block_features([prepared]).pooled, expected, atol=SAME)
    np.testing.assert_allclose(backbone.features([prepared]).pooled[0], expected.mean(axis=0), atol=SAME)


def test_texts_and_the_other_modality(tiny_clap: TinyClap) -> None:
    reference = tiny_clap()
    clip, own = OpenClip(reference), open_clips_own(reference)
    texts = ["a dog barks", "rain"]
    with torch.inference_mode():
        expected = own.encode_text(open_clip.get_tokenizer("tiny-clap")(texts)).numpy()
    backbone = clip.backbone("text", device=PLAIN)
    np.testing.assert_allclose(backbone.features(backbone.prepare_all(texts)).pooled, expected, atol=1e-5)
    with pytest.raises(WeightsError, match="has towers for text and audio, not for image"):
        clip.backbone("image")


def test_a_bad_item_is_told(tiny_clap: TinyClap) -> None:
    backbone = OpenClip(tiny_clap()).backbone("audio")
    with pytest.raises(DecodeError, match=r"none 0, got \(0,\)"):
        backbone.prepare((np.zeros(0, np.float32), SECOND))
    with pytest.raises(DecodeError, match="not a sound that can be decoded"):
        backbone.prepare(b"no sound")
    assert backbone.features([]).pooled.shape == (0, 16)


def test_the_tower_in_half_precision(tiny_clap: TinyClap) -> None:
    """As on a GPU, with all shapes fixed; the log-mel frames are made in full."""
    clip = OpenClip(tiny_clap())
    backbone = clip.backbone("audio")
    prepared = [backbone.prepare((noise(1.0, seed=seed), SECOND)) for seed in range(3)]
    exact = backbone.features(prepared).pooled
    half = TorchNetwork(clip._sound_architecture().build(), device=PLAIN, dtype=torch.float16, mode="graphs")
    backbone._network = half  # type: ignore[attr-defined]
    rounded = backbone.features(prepared).pooled
    assert (unit_rows(exact) * unit_rows(rounded)).sum(axis=1).min() > 0.9999
    assert not np.array_equal(exact, rounded)


def test_a_model_of_the_hub(tiny_clap: TinyClap, hub_cache: Path, tmp_path: Path) -> None:
    reference = tiny_clap()
    folder = hub_cache / "models--org--clap" / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    config = json.loads((tmp_path / "tiny-clap.json").read_text())
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    shutil.copy(tmp_path / "tiny-clap.pt", folder / "open_clip_pytorch_model.bin")
    by_name, of_hub = OpenClip(reference), OpenClip(f"open-clip:hf-hub:org/clap@{'0' * 40}")
    sound = by_name.backbone("audio").prepare((noise(0.5), SECOND))
    first, second = (clip.backbone("audio").features([sound]).pooled for clip in (by_name, of_hub))
    np.testing.assert_array_equal(first, second)


def clap_of_transformers(tmp_path: Path) -> Any:
    """Make a random CLAP of transformers', and the folder of its text tower's config."""
    from transformers import ClapConfig, ClapModel, RobertaConfig
    from transformers.models.clap.configuration_clap import ClapAudioConfig, ClapTextConfig

    words: dict[str, Any] = {
        **{"vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
        **{"intermediate_size": 32, "max_position_embeddings": 80, "pad_token_id": 1, "type_vocab_size": 1},
    }
    sounds: dict[str, Any] = {
        **{"depths": [2, 2, 1, 1], "num_attention_heads": [1, 2, 4, 8], "patch_embeds_hidden_size": 8},
        **{"hidden_size": 64, "num_classes": 5, "projection_dim": 16, "enable_fusion": False},
    }
    torch.manual_seed(0)
    texts, audio = ClapTextConfig(**words, projection_dim=16), ClapAudioConfig(**sounds)
    config = ClapConfig(text_config=texts.to_dict(), audio_config=audio.to_dict(), projection_dim=16)
    model = ClapModel(config).eval()
    norm = model.audio_model.audio_encoder.batch_norm
    norm.running_mean.normal_(-30, 5)
    norm.running_var.uniform_(100, 300)
    for weight in model.parameters():
        weight.data.mul_(8)  # as they are made, they hardly matter
    RobertaConfig(**words).save_pretrained(tmp_path / "words")
    return model


TEXT_OF_TRANSFORMERS = {"hf_pooler_type": "cls_pooler", "hf_proj_type": "clap_mlp", "context_length": 20}


def test_laions_weights_as_transformers_has_them(
    tiny_clap: TinyClap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`laion` tags: checkpoints of transformers' CLAP, which gives the same vectors by its own front end."""
    from open_clip.pretrained import _PRETRAINED
    from safetensors.torch import save_file
    from transformers import ClapFeatureExtractor

    model = clap_of_transformers(tmp_path)
    words = str(tmp_path / "words")
    tiny_clap(text={**TEXT_OF_TRANSFORMERS, "hf_model_name": words, "hf_tokenizer_name": words}, proj_act="relu")
    state = {name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}
    file = tmp_path / "model.safetensors"
    save_file(state, file)
    tag = {"file": str(file), "hf_transformers_clap": True}
    monkeypatch.setitem(
        _PRETRAINED, "tiny-clap", {"laion": tag, "half": {**tag, "file": str(tmp_path / "half.safetensors")}}
    )
    clip = OpenClip("open-clip:tiny-clap/laion")
    backbone = clip.backbone("audio")
    sound = noise(0.4, seed=1)
    ready = ClapFeatureExtractor(max_length_s=1, frequency_min=50)(  # as LAION's configs have it
        sound, sampling_rate=SECOND, return_tensors="pt", truncation="rand_trunc", padding="repeatpad"
    )
    with torch.inference_mode():
        theirs = model.audio_projection(model.audio_model(**ready).pooler_output).numpy()
        ids = torch.tensor([[0, 30, 40, 50, 2] + [1] * 15])
        mask = (ids != 1).long()
        texts = model.text_projection(model.text_model(input_ids=ids, attention_mask=mask).pooler_output).numpy()
    found = backbone.features([backbone.prepare((sound, SECOND))]).pooled
    np.testing.assert_allclose(unit_rows(found), unit_rows(theirs), atol=1e-3)  # their front end is in double precision
    text_tower = clip._text_architecture().build()
    with torch.inference_mode():
        np.testing.assert_allclose(text_tower(ids)[0].numpy(), texts, atol=1e-4)
    del state["audio_model.audio_encoder.layers.0.blocks.0.layernorm_before.weight"]
    save_file(state, tmp_path / "half.safetensors")
    with pytest.raises(
        WeightsError, match=r"missing audio.encoder.layers.0.blocks.0.norm1.weight \(1\), unknown nothing"
    ):
        OpenClip("open-clip:tiny-clap/half")


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        ({"training_head": True}, "lie beside the texts only in training"),
        ({"model_type": "whisper", "model_name": "tiny"}, "of type 'whisper'; only HTSAT is known here"),
    ],
)
def test_towers_that_are_not_known(tiny_clap: TinyClap, tmp_path: Path, audio: dict[str, Any], message: str) -> None:
    reference = tiny_clap()
    config = json.loads((tmp_path / "tiny-clap.json").read_text())
    config["audio_cfg"].update(audio)
    (tmp_path / "tiny-clap.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-clap.json")
    with pytest.raises(WeightsError, match=message):
        OpenClip(reference)


def test_another_front_end_is_refused(tiny_clap: TinyClap) -> None:
    """Its filters are weights of the checkpoint; ours are by formula."""

    def louder(model: Any) -> None:
        model.audio.encoder.logmel_extractor.melW.data *= 1.1

    with pytest.raises(WeightsError, match=r"log-mel frames are not those that are made here: 0\.41 dB apart"):
        OpenClip(tiny_clap(change=louder))


def test_without_torchlibrosa(tiny_clap: TinyClap, monkeypatch: pytest.MonkeyPatch) -> None:
    reference, find = tiny_clap(), importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torchlibrosa" else find(name))
    with pytest.raises(WeightsError, match="need torchlibrosa: `pip install torchlibrosa`"):
        OpenClip(reference)


# What needs no audio tower.


@pytest.mark.parametrize("reference", ["open-clip:CLAP-HTSAT-tiny/laion", "open-clip:hf-hub:org/tiny"])
def test_an_open_clip_without_audio_towers(
    hub_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    from trivium.encoders.clip import checkpoint as clip_loading

    monkeypatch.setattr(clip_loading, "has_audio", lambda: False)
    monkeypatch.setattr(open_clip, "list_models", lambda: ["ViT-B-32"])
    path = hub_clip() / "open_clip_config.json"
    config = json.loads(path.read_text())["model_cfg"]
    path.write_text(json.dumps({"model_cfg": {**config, "audio_cfg": {}}}))
    with pytest.raises(WeightsError) as caught:
        OpenClip(reference)
    assert str(caught.value) == (
        f"open_clip {open_clip.__version__} has no audio towers (CLAP). Its main branch has them, as version 4: "
        "`pip install git+https://github.com/mlfoundations/open_clip torchlibrosa`"
    )


def stream_of(sound: Waveform, rate_hz: int) -> SoundStream:
    pieces = iter(np.array_split(sound, 7))
    return SoundStream(frames=len(sound), rate_hz=rate_hz, peak=float(np.abs(sound).max()), chunks=pieces)


@pytest.mark.parametrize("seconds", [0.4, 1.0, 1.25, 2.0, 7.3])
@pytest.mark.parametrize("rate_hz", [48_000, 44_100])
def test_a_stream_is_the_whole_sound(seconds: float, rate_hz: int) -> None:
    mel, sound = ClipMel(FACTS), noise(seconds, rate_hz)
    parts = list(mel.parts(stream_of(sound, rate_hz)))
    whole = mel.whole(sound.copy(), rate_hz)
    assert max(map(len, parts)) <= 8 + 1
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=0.05)  # decibels
    assert len(whole) == max(1, int(np.ceil((seconds - 1) / 0.5)) + 1)


def test_the_level_of_a_sound_stays() -> None:
    mel, sound = ClipMel(FACTS), noise(0.5)
    loud, quiet = (mel.whole(factor * sound, 48_000) for factor in (np.float32(1), np.float32(0.1)))
    np.testing.assert_allclose(loud - quiet, 20, atol=0.01)
    absurd = mel.whole(sound * np.float32(1e37), 44_100)
    most = np.float32(100) / np.abs(sound).max()
    np.testing.assert_allclose(absurd, mel.whole(sound * most, 44_100), atol=0.01)
    (streamed,) = mel.parts(stream_of(sound * np.float32(1e37), 44_100))
    np.testing.assert_allclose(streamed, absurd, atol=0.05)


@pytest.fixture
def backbone() -> Any:
    """A backbone whose network says how loud each block is."""
    from trivium.encoders.audio.backbone import AudioBackbone

    class Loudness:
        device = "cpu"

        def __call__(self, *inputs: NDArray[Any]) -> tuple[NDArray[Any], ...]:
            assert len(inputs[0]) <= 4
            return (inputs[0].mean(axis=(1, 2))[:, None],)

    return AudioBackbone(Loudness(), ClipMel(FACTS), dim=1, heads={})


def test_windows_are_means_of_the_blocks_in_them(backbone: Any) -> None:
    # Centres of the blocks of four seconds: 0.5, 1.0, ... 3.5.
    assert backbone.windows(7, [(0, 1), (1, 2), (2.2, 2.3), (3.9, 4), (0, 4)]) == [
        (0, 1),
        (1, 3),
        (4, 5),
        (6, 7),
        (0, 7),
    ]
    sounds = [(noise(seconds, seed=2), 48_000) for seconds in (0.5, 4.0, 1.2)]
    prepared = [backbone.prepare(sound) for sound in sounds]
    together = backbone.features(prepared).pooled
    alone = np.concatenate([backbone.features([each]).pooled for each in prepared])
    np.testing.assert_allclose(together, alone, atol=1e-4)
    (blocks,) = backbone.blocks(sounds[1])
    np.testing.assert_array_equal(blocks, prepared[1])
    streamed = np.concatenate(list(backbone.blocks(stream_of(*sounds[1]))))
    np.testing.assert_allclose(streamed, blocks, atol=0.05)
