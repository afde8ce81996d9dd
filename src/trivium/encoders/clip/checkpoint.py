"""Loading open_clip's models: weights as tensors only, nothing fetched that was not asked for."""

import difflib
import importlib
import importlib.util
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip

from trivium.encoders.base import WeightsError
from trivium.encoders.clip.facts import TokenizerFacts, tokenizer_file
from trivium.encoders.clip.reference import CONFIG_FILE, FOLDER, HUB, HUB_NAME, ClipSource, hub_files
from trivium.encoders.clip.tokenizers import PROBES, TOKENIZER_FILES, FileTokenizer, keep_tokenizer
from trivium.encoders.files.foreign import read_foreign_json
from trivium.encoders.networks.fetching import forbidden_by

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
MAX_CONFIG_BYTES = 1 << 20
CONTEXT_LENGTH = 77  # open_clip's, where a config has none
NO_AUDIO = (
    "open_clip {version} has no audio towers (CLAP). Its main branch has them, as version 4: "
    "`pip install git+https://github.com/mlfoundations/open_clip torchlibrosa`"
)
# What a Transformers checkpoint of CLAP does not hold: a front end by formula, and the classifier of AudioSet.
NOT_IN_CLAP = re.compile(
    r"audio\.encoder\.(spectrogram_extractor|logmel_extractor|tscam_conv|head)\..*|.*\.num_batches_tracked"
    r"|.*\.(attn_mask|relative_position_index)|.*\.(position_ids|token_type_ids)"
)


def config_of(source: ClipSource, *, announce: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Return the config of a model's towers, with everything beside it that building them takes in the Hub's cache.

    Raises:
        WeightsError: If there is no such model, or it needs what is not known here.
    """
    if source.snapshot is None:
        check_name(source.name)
        config: dict[str, Any] = open_clip.get_model_config(source.name) or {}
    else:
        config = _read_config(source.snapshot.folder / CONFIG_FILE)
        _check_outside(source, config, announce)
    if "audio_cfg" in config:
        check_audio(config["audio_cfg"])
    elif "vision_cfg" not in config:
        raise WeightsError(f"{source.name} has neither a picture nor an audio tower: {', '.join(sorted(config))}")
    return config


def check_name(name: str) -> None:
    """Refuse a name that open_clip does not know.

    Raises:
        WeightsError: Then; it lists the nearest.
    """
    names = open_clip.list_models()
    if name in names:
        return
    if "clap" in name.lower() and not has_audio():
        raise WeightsError(NO_AUDIO.format(version=open_clip.__version__))
    near = difflib.get_close_matches(name, names, n=5, cutoff=0.3)
    raise WeightsError(f"open_clip has no model '{name}', nearest are: {', '.join(near) or 'none'}")


def has_audio() -> bool:
    """Whether the installed open_clip has audio towers."""
    return importlib.util.find_spec("open_clip.audio") is not None


def check_audio(config: Mapping[str, Any]) -> None:
    """Refuse audio towers that cannot be built, or not be trusted to give one vector for one sound.

    Raises:
        WeightsError: Then.
    """
    if not has_audio():
        raise WeightsError(NO_AUDIO.format(version=open_clip.__version__))
    kind = config.get("model_type", "HTSAT")
    if kind != "HTSAT":
        raise WeightsError(f"the audio tower is of type '{kind}'; only HTSAT is known here")
    if config.get("training_head"):
        raise WeightsError("the audio tower's vectors lie beside the texts only in training (training_head)")
    if importlib.util.find_spec("torchlibrosa") is None:
        raise WeightsError("open_clip's audio towers need torchlibrosa: `pip install torchlibrosa`")


def checkpoint_file(source: ClipSource) -> Path:
    """Return the file of a model's weights, which open_clip downloads if it has no copy.

    Raises:
        WeightsError: If it cannot be had.
    """
    if source.snapshot is not None:
        return source.snapshot.weights
    name, pretrained = source.name, source.pretrained
    path = Path(pretrained)
    if path.is_absolute():
        if path.suffix not in SUFFIXES:
            raise WeightsError(
                f"{path} is no checkpoint that is known here: its name must end in {', '.join(SUFFIXES)}"
            )
        if not path.is_file():
            raise WeightsError(f"there is no checkpoint {path}")
        return path
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained not in tags:
        known = ", ".join(tags) or "none"
        raise WeightsError(
            f"open_clip has no weights '{pretrained}' for {name}, known are: {known}; a local checkpoint is written as "
            f"its absolute path: {name}//folder/model.pt"
        )
    cfg = open_clip.get_pretrained_cfg(name, pretrained)
    try:
        if forbidden_by() is not None and cfg.get("url") and not cfg.get("hf_hub"):
            kept = Path("~/.cache/clip").expanduser() / cfg["url"].rpartition("/")[2]  # open_clip's, of what has no hub
            if not kept.is_file():
                raise FileNotFoundError(f"no {kept}")
        return Path(_offline_first(lambda: open_clip.download_pretrained(cfg)))
    except Exception as error:  # of the hub, of urllib, of the disk
        reason = forbidden_by()
        hint = "" if reason is None else f", and {reason}"
        if os.environ.get("TRIVIUM_OFFLINE"):
            hint += ": run `trivium pull` where there is a network"
        raise WeightsError(
            f"open_clip cannot give the weights '{pretrained}' of {name}{hint}: {_one_line(error)}"
        ) from error


def load_model(source: ClipSource) -> Any:
    """Load an open_clip model in float32, on the CPU.

    Raises:
        WeightsError: If the weights cannot be had, or are not those of this model.
    """
    file = checkpoint_file(source)
    model: Any
    try:
        if source.snapshot is None:
            model = _offline_first(
                lambda: open_clip.create_model(
                    source.name,
                    pretrained=source.pretrained,
                    precision="fp32",
                    force_quick_gelu=wants_quick_gelu(source),
                    weights_only=True,
                )
            )
        else:
            with quietly(offline=True):  # what it takes has been fetched
                model = open_clip.create_model(
                    source.model, load_weights=False, pretrained_text=False, precision="fp32"
                )
                open_clip.load_checkpoint(model, str(file), strict=True, weights_only=True)
    except Exception as error:  # torch, safetensors, transformers: each has its own
        if "weights_only" not in str(error):
            raise WeightsError(f"{file} cannot be loaded as open_clip's {source.name}: {_one_line(error)}") from error
        # torch's advice would be to load what may run code.
        raise WeightsError(
            f"{file} cannot be loaded as open_clip's {source.name}: it holds more than tensors, which may run code and "
            "is never loaded. Ask whoever made it for safetensors"
        ) from None
    if (open_clip.get_pretrained_cfg(source.name, source.pretrained) or {}).get("hf_transformers_clap"):
        _check_clap(model, file)
    return model.eval()


def wants_quick_gelu(source: ClipSource) -> bool:
    """Whether weights were trained with the quicker GELU, without which they are off; open_clip only warns."""
    return bool((open_clip.get_pretrained_cfg(source.name, source.pretrained) or {}).get("quick_gelu"))


def tokenizer_of(name: str) -> Any:
    """Return open_clip's own tokenizer of a model, which may download its vocabulary.

    Raises:
        WeightsError: If it cannot be had.
    """
    try:
        return _offline_first(lambda: open_clip.get_tokenizer(name))
    except Exception as error:
        raise WeightsError(f"open_clip cannot give the tokenizer of {name}: {_one_line(error)}") from error


def tokenizer_facts(
    source: ClipSource, config: Mapping[str, Any], *, announce: Callable[[str], None] | None = None
) -> tuple[bool, TokenizerFacts | None]:
    """Return whether a model takes CLIP's own tokenizer as it is, and else its own, if it comes from a file.

    Raises:
        WeightsError: If it cannot be had, or would not be used as open_clip uses it.
    """
    text: Mapping[str, Any] = config.get("text_cfg", {})
    name = text.get("hf_tokenizer_name")
    if source.snapshot is None:  # as `open_clip.get_tokenizer` decides
        return not (name or text.get("tokenizer_kwargs") or "siglip" in source.name.lower()), None
    if text.get("tokenizer_type"):
        raise WeightsError(f"{source.name} has a tokenizer of type '{text['tokenizer_type']}', which is not known here")
    if not name:
        if text.get("tokenizer_kwargs"):
            raise WeightsError(f"{source.name} uses CLIP's tokenizer with options, which is not known here")
        return True, None
    folder = _tokenizer_folder(source, str(name), announce)
    facts = keep_tokenizer(folder, str(name), text)
    length = int(text.get("context_length", CONTEXT_LENGTH))
    ours = FileTokenizer(tokenizer_file(facts), facts, context_length=length)(PROBES)
    options = text.get("tokenizer_kwargs") or {}
    try:
        with quietly(offline=True):
            own = open_clip.tokenizer.HFTokenizer(str(folder), context_length=length, **options)(PROBES).tolist()
    except Exception as error:  # transformers'
        raise WeightsError(f"transformers cannot load the tokenizer {name}: {_one_line(error)}") from error
    if [ids.tolist() for ids in ours] != own:
        raise WeightsError(
            f"the tokenizer {name} does not give the tokens that open_clip's gives, so {source.name} cannot be used. "
            "If open_clip has a tag for this model, use that: open-clip:MODEL/TAG"
        )
    return False, facts


@contextmanager
def quietly(*, offline: bool = False) -> Iterator[None]:
    """Keep open_clip from logging to the screen, and from the network where nothing may be fetched, or if told to."""
    from huggingface_hub import constants

    root = logging.getLogger()
    silent = logging.NullHandler()  # without a handler, the first message would install one for good
    level, was_offline = root.level, constants.HF_HUB_OFFLINE
    root.addHandler(silent)
    root.setLevel(logging.CRITICAL)
    constants.HF_HUB_OFFLINE = offline or forbidden_by() is not None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeHandler(silent)
        root.setLevel(level)
        constants.HF_HUB_OFFLINE = was_offline


def _offline_first(make: Callable[[], Any]) -> Any:
    """Make something without the Hub if its cache has what it takes: its client asks for news even then."""
    try:
        with quietly(offline=True):
            return make()
    except Exception:  # of the Hub's client, of transformers; what is wrong otherwise is wrong again
        with quietly():
            return make()


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = _foreign_json(path)["model_cfg"]
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} cannot be read as a config of open_clip: {_one_line(error)}") from error
    parts = [config.get(part, {}) for part in ("vision_cfg", "audio_cfg")] if isinstance(config, dict) else [None]
    is_whole = isinstance(config, dict) and isinstance(config.get("text_cfg"), dict) and "embed_dim" in config
    if not is_whole or not all(isinstance(part, dict) for part in parts):
        raise WeightsError(f"{path} is no config of open_clip: its model_cfg needs embed_dim and text_cfg")
    return config


def _foreign_json(path: Path) -> dict[str, Any]:
    """Read JSON of a snapshot; the Hub's cache has links to its blobs there."""
    found: dict[str, Any] = read_foreign_json(Path(os.path.realpath(path)), max_bytes=MAX_CONFIG_BYTES)
    return found


def _check_outside(source: ClipSource, config: dict[str, Any], announce: Callable[[str], None] | None) -> None:
    """Fetch what a config from outside refers to, and refuse what would run or fetch more than that."""
    if ":" in str(config.get("vision_cfg", {}).get("timm_model_name", "")):
        raise WeightsError(f"the picture tower of {source.name} refers to another repository, which is not followed")
    text = config["text_cfg"]
    if not (name := text.get("hf_model_name")):
        return
    folder = _outside_folder(str(name), ["config.json"], announce)
    try:
        described = _foreign_json(folder / "config.json")
    except ValueError as error:
        raise WeightsError(f"the config of {name} in {folder} cannot be read: {error}") from error
    from transformers import CONFIG_MAPPING

    if described.get("model_type") not in CONFIG_MAPPING:
        raise WeightsError(
            f"the text tower {name} is of type '{described.get('model_type')}', which needs code of its own"
        )
    text["trivium_described"] = described  # for the revision: it decides vectors as much as the rest


def _tokenizer_folder(source: ClipSource, name: str, announce: Callable[[str], None] | None) -> Path:
    assert source.snapshot is not None
    if source.name == FOLDER:  # open_clip looks nowhere else
        return source.snapshot.folder
    if name == source.name.removeprefix(HUB):
        return hub_files(name, TOKENIZER_FILES, revision=source.snapshot.commit, announce=announce)
    return _outside_folder(name, TOKENIZER_FILES, announce)


def _outside_folder(name: str, files: Any, announce: Callable[[str], None] | None) -> Path:
    if Path(name).is_absolute():
        return Path(name)
    parts = HUB_NAME.fullmatch(name)
    if parts is None or parts["revision"] or ".." in name:
        raise WeightsError(f"'{name}' is no repository of the Hub")
    return hub_files(name, files, announce=announce)


def _check_clap(model: Any, file: Path) -> None:
    """Refuse a checkpoint of Transformers' CLAP that leaves weights random: open_clip takes what fits, in silence."""
    # Not in the releases that most have.
    convert = importlib.import_module("open_clip.audio.convert")

    given, needed = set(convert.load_hf_clap_state_dict(file)), set(model.state_dict())
    missing = sorted(name for name in needed - given if NOT_IN_CLAP.fullmatch(name) is None)
    surplus = sorted(name for name in given - needed if NOT_IN_CLAP.fullmatch(name) is None)
    if missing or surplus:
        raise WeightsError(
            f"{file} is not the whole CLAP model: missing {', '.join(missing[:5]) or 'nothing'} ({len(missing)}), "
            f"unknown {', '.join(surplus[:5]) or 'nothing'} ({len(surplus)})"
        )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:600] or type(error).__name__
