"""The towers of an open_clip model as torch modules that run alone."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from open_clip.transformer import ResidualAttentionBlock, text_global_pool
from torch import Tensor, nn

FIXED_POINT = 2**20


class ImageTower(nn.Module):
    """Pixels in, embeddings out."""

    def __init__(self, model: Any, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.model = _copy_without(
            model, _others(model, *(name for name, _ in model.named_children() if name != "visual"))
        )
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
        self.model = _copy_without(model, _others(model, "visual", "audio"))
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


class SoundTower(nn.Module):
    """Log-mel frames of blocks in, embeddings out; open_clip's own front end, of samples, is left out.

    A model with fusion gets what open_clip gives it for sounds that are no longer than one block: four times the same.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = _copy_without(model, _others(model, "text"))
        encoder = self.model.audio.encoder
        self.fuses = bool(encoder.enable_fusion)
        encoder.spectrogram_extractor = nn.Identity()
        encoder.logmel_extractor = LikeWeights()

    def forward(self, log_mel: Tensor) -> tuple[Tensor]:
        """Map (n, t, mel) to embeddings (n, d)."""
        x = log_mel.unsqueeze(1)  # (n, 1, t, mel)
        if not self.fuses:
            return (self.model.encode_audio({"waveform": x}),)
        # On the processor, so that a device need not be waited for to learn that none is longer.
        is_longer = torch.zeros(len(x), 1, dtype=torch.bool)
        return (self.model.encode_audio({"mel_fusion": x.expand(-1, 4, -1, -1), "longer": is_longer}),)


class LikeWeights(nn.Module):
    """Numbers in the precision of the weights: open_clip brings what it takes for samples to float32."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight_like", torch.zeros(()))  # tells the precision of the weights

    def forward(self, x: Tensor) -> Tensor:
        """Round them."""
        return x.to(self.get_buffer("weight_like").dtype)


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


def _copy_without(model: Any, parts: Sequence[nn.Module]) -> Any:
    """Copy a model, with None for some of its parts: a tower goes to its device alone, and is changed there."""
    return copy.deepcopy(model, {id(part): None for part in parts})


def _others(model: Any, *names: str) -> list[nn.Module]:
    """Return those of a model's parts that it has."""
    return [part for name in names if (part := getattr(model, name, None)) is not None]


def _blocks(tower: Any) -> list[Any]:
    """Return a transformer's blocks; one that is none of ours if there are no such."""
    blocks = getattr(getattr(tower, "transformer", None), "resblocks", None)
    return list(blocks) if blocks is not None else [None]


def _pool_type(tower: Any) -> str:
    return str(getattr(tower, "pool_type", getattr(tower, "text_pool_type", "")))


def _end_id(tower: Any) -> int | None:
    return getattr(tower, "eos_id", getattr(tower, "text_eos_id", None))
