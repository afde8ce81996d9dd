"""The two towers of an open_clip model as torch modules that can be exported, and how such a model is loaded."""

import copy
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transformer import ResidualAttentionBlock, text_global_pool
from torch import Tensor, nn

from trivium.encoders.weights import WeightsError

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
FIXED_POINT = 2**20


class ImageTower(nn.Module):
    """Pixels in, embeddings out."""

    def __init__(self, model: Any, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.model = _copy_without(model, [child for name, child in model.named_children() if name != "visual"])
        # Of 0..1 in the model's own preprocessing, of 0..255 here. As integers, because half precision would round
        # them, and so shift every picture in the same way.
        self.register_buffer("offset", torch.tensor([round(value * 255 * FIXED_POINT) for value in mean]))
        self.register_buffer("scale", torch.tensor([round(value * 255 * FIXED_POINT) for value in std]))
        self.register_buffer("weight_like", torch.zeros(()))  # tells the precision of the weights

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        """Map uint8 pixels (n, 3, h, w) to embeddings (n, d)."""
        offset = (self.get_buffer("offset").float() / FIXED_POINT).view(1, 3, 1, 1)
        scale = (self.get_buffer("scale").float() / FIXED_POINT).view(1, 3, 1, 1)
        x = (pixels.float() - offset) / scale
        return (self.model.encode_image(x.to(self.get_buffer("weight_like").dtype)),)


class SelfAttention(nn.Module):
    """What `nn.MultiheadAttention` computes of one sequence, exported for any length: its own is fixed then."""

    def __init__(self, source: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads = source.num_heads
        self.in_weight, self.in_bias = source.in_proj_weight, source.in_proj_bias
        self.out = source.out_proj

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, need_weights: bool, attn_mask: Tensor) -> tuple[Tensor, None]:
        """Map (n, t, d) to (n, t, d); called as the module it stands for, with three times the same."""
        del k, v, need_weights
        n, t, d = q.shape
        x = nn.functional.linear(q, self.in_weight, self.in_bias)  # (n, t, 3 d)
        parts = x.reshape(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)  # (3, n, heads, t, d / heads)
        x = nn.functional.scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask=attn_mask)
        return self.out(x.transpose(1, 2).reshape(n, t, d)), None


class TextTower(nn.Module):
    """Token ids in, embeddings out; of fewer positions than the model has, if it is a causal one (`can_cut`)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = _copy_without(model, [model.visual])
        self.tower = getattr(self.model, "text", self.model)
        self.cuts = can_cut(model)
        if self.cuts:
            for block in self.tower.transformer.resblocks:
                if isinstance(block.attn, nn.MultiheadAttention):
                    block.attn = SelfAttention(block.attn)

    def forward(self, tokens: Tensor) -> tuple[Tensor]:
        """Map ids (n, t) to embeddings (n, d)."""
        if not self.cuts:
            return (self.model.encode_text(tokens),)
        tower = self.tower
        length = tokens.shape[1]
        x = tower.token_embedding(tokens)
        x = x + tower.positional_embedding[:length].to(x.dtype)
        x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length].to(x.dtype))
        x = tower.ln_final(x)
        x = text_global_pool(x, tokens, _pool_type(tower), eos_token_id=_end_id(tower))
        projection = tower.text_projection
        if projection is not None:
            x = projection(x) if isinstance(projection, nn.Linear) else x @ projection
        return (x,)


def can_cut(model: Any) -> bool:
    """Whether positions after the end token cannot matter: attention is causal, and the end token is the text."""
    tower = getattr(model, "text", model)
    return (
        _pool_type(tower) in ("argmax", "eos")
        and getattr(tower, "attn_mask", None) is not None
        and getattr(tower, "cls_emb", None) is None
        and not getattr(tower, "use_pad_mask", False)
        and all(isinstance(block, ResidualAttentionBlock) for block in _blocks(tower))
        and all(hasattr(tower, part) for part in ("token_embedding", "positional_embedding", "transformer", "ln_final"))
    )


def checkpoint_file(name: str, pretrained: str) -> Path:
    """Return the file of a model's weights, which open_clip downloads if it has no copy.

    Args:
        name: One of ``open_clip.list_models()``.
        pretrained: One of the tags that open_clip knows for it, or the path of a checkpoint.

    Raises:
        WeightsError: If it cannot be had.
    """
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
    try:
        with _quietly():
            return Path(open_clip.download_pretrained(open_clip.get_pretrained_cfg(name, pretrained)))
    except Exception as error:  # of the hub, of urllib, of the disk
        hint = ""
        if os.environ.get("TRIVIUM_OFFLINE"):
            hint = ", and TRIVIUM_OFFLINE forbids fetching them: run `trivium pull` where there is a network"
        raise WeightsError(
            f"open_clip cannot give the weights '{pretrained}' of {name}{hint}: {_one_line(error)}"
        ) from error


def load_model(name: str, pretrained: str) -> Any:
    """Load an open_clip model in float32, on the CPU.

    Args:
        name: One of ``open_clip.list_models()``.
        pretrained: See `checkpoint_file`.

    Raises:
        WeightsError: If the weights cannot be had, or are not those of this model.
    """
    file = checkpoint_file(name, pretrained)
    is_quick = wants_quick_gelu(name, pretrained)
    try:
        with _quietly():
            model = open_clip.create_model(
                name, pretrained=pretrained, precision="fp32", force_quick_gelu=is_quick, weights_only=True
            )
    except Exception as error:  # torch, safetensors, transformers: each has its own
        raise WeightsError(f"{file} cannot be loaded as open_clip's {name}: {_one_line(error)}") from error
    return model.eval()


def wants_quick_gelu(name: str, pretrained: str) -> bool:
    """Whether weights were trained with the quicker GELU, without which they are off; open_clip only warns."""
    return bool((open_clip.get_pretrained_cfg(name, pretrained) or {}).get("quick_gelu"))


def tokenizer_of(name: str) -> Any:
    """Return open_clip's own tokenizer of a model, which may download its vocabulary.

    Raises:
        WeightsError: If it cannot be had.
    """
    try:
        with _quietly():
            return open_clip.get_tokenizer(name)
    except Exception as error:
        raise WeightsError(f"open_clip cannot give the tokenizer of {name}: {_one_line(error)}") from error


def has_plain_tokenizer(name: str) -> bool:
    """Whether a model takes CLIP's own tokenizer as it is: `open_clip.get_tokenizer` decides so."""
    text: Mapping[str, Any] = (open_clip.get_model_config(name) or {}).get("text_cfg", {})
    return not (text.get("hf_tokenizer_name") or text.get("tokenizer_kwargs") or "siglip" in name.lower())


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep open_clip from logging to the screen, and from the network where TRIVIUM_OFFLINE is set."""
    from huggingface_hub import constants

    root = logging.getLogger()
    silent = logging.NullHandler()  # without a handler, the first message would install one for good
    level, was_offline = root.level, constants.HF_HUB_OFFLINE
    is_offline = bool(os.environ.get("TRIVIUM_OFFLINE"))
    root.addHandler(silent)
    root.setLevel(logging.CRITICAL)
    constants.HF_HUB_OFFLINE = was_offline or is_offline
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeHandler(silent)
        root.setLevel(level)
        constants.HF_HUB_OFFLINE = was_offline


def _copy_without(model: Any, parts: Sequence[nn.Module]) -> Any:
    """Copy a model, with None for some of its parts: a tower goes to its device alone, and is changed there."""
    return copy.deepcopy(model, {id(part): None for part in parts})


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:600] or type(error).__name__


def _blocks(tower: Any) -> list[Any]:
    """Return a transformer's blocks; one that is none of ours if there are no such."""
    blocks = getattr(getattr(tower, "transformer", None), "resblocks", None)
    return list(blocks) if blocks is not None else [None]


def _pool_type(tower: Any) -> str:
    return str(getattr(tower, "pool_type", getattr(tower, "text_pool_type", "")))


def _end_id(tower: Any) -> int | None:
    return getattr(tower, "eos_id", getattr(tower, "text_eos_id", None))
