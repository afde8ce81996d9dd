"""The two towers of an open_clip model as torch modules that can be exported, and how such a model is loaded."""

import hashlib
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.factory import load_state_dict
from open_clip.transformer import ResidualAttentionBlock, text_global_pool
from torch import Tensor, nn

from trivium.encoders.weights import WeightsError


class ImageTower(nn.Module):
    """Pixels in, embeddings out."""

    def __init__(self, model: Any, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.visual = model.visual
        # Of 0..1 in the model's own preprocessing, of 0..255 here.
        self.register_buffer("offset", torch.tensor(mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("scale", torch.tensor(std).view(1, 3, 1, 1) * 255)

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        """Map uint8 pixels (n, 3, h, w) to embeddings (n, d)."""
        offset = self.get_buffer("offset")
        return (self.visual((pixels.to(offset.dtype) - offset) / self.get_buffer("scale")),)


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
        self.model = model
        self.tower = getattr(model, "text", model)
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


def load_model(name: str, pretrained: str) -> Any:
    """Load an open_clip model in float32.

    Args:
        name: One of ``open_clip.list_models()``.
        pretrained: A tag that open_clip knows, whose weights it downloads; or the path of a checkpoint.

    Raises:
        WeightsError: If the weights cannot be had, or are not those of this model.
    """
    try:
        if not Path(pretrained).is_absolute():
            return open_clip.create_model(name, pretrained=pretrained, precision="fp32").eval()
        model = open_clip.create_model(name, precision="fp32", pretrained_text=False)
        state = load_state_dict(pretrained, weights_only=True)
        missing, unexpected = model.load_state_dict(state, strict=False)
    except WeightsError:
        raise
    except Exception as error:  # torch, safetensors, the hub: each has its own
        raise WeightsError(f"cannot load open_clip's {name} from '{pretrained}': {error}") from error
    if missing or unexpected:
        raise WeightsError(
            f"{pretrained} is not of {name}: {len(missing)} tensors are missing ({', '.join(missing[:3])} ...), "
            f"{len(unexpected)} are unknown ({', '.join(unexpected[:3])} ...)"
        )
    return model.eval()


def state_sha256(model: Any) -> str:
    """Hash all weights of a model."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def _blocks(tower: Any) -> list[Any]:
    """Return a transformer's blocks; one that is none of ours if there are no such."""
    blocks = getattr(getattr(tower, "transformer", None), "resblocks", None)
    return list(blocks) if blocks is not None else [None]


def _pool_type(tower: Any) -> str:
    return str(getattr(tower, "pool_type", getattr(tower, "text_pool_type", "")))


def _end_id(tower: Any) -> int | None:
    return getattr(tower, "eos_id", getattr(tower, "text_eos_id", None))
