"""The same weights for all, in each one's own wrapping."""

import json
import shutil
from pathlib import Path
from typing import Any

from encoding_media import FOLDER

from trivium.encoders.networks.weights import WEIGHTS, fetch
from trivium.encoders.registry import BACKBONES

MODEL = "ViT-B-32"
RCLIP_MODEL = "ViT-B-32-256"
RCLIP_DATA = FOLDER / "rclip"
RCLIP_TOWERS = "ViT-B-32-256-datacomp_s34b_b86k"  # where rclip looks for them
MINILM_TOKENS = 256  # what Trivium reads of a text in one piece, and the model's own default
POOLED = "trivium-features"


def checkpoint(model: str = MODEL) -> str:
    """Random weights of a model of open_clip, by seed."""
    path = FOLDER / f"{model}.pt"
    if not path.exists():
        import open_clip
        import torch

        torch.manual_seed(0)
        torch.save(open_clip.create_model(model).state_dict(), path)
    return str(path)


def features_space(backbone: str) -> str:
    """Make a space of a backbone's own vectors, so that they compare with the peers'."""
    spec = BACKBONES[backbone]
    folder = FOLDER / f"space-{backbone}"
    folder.mkdir(parents=True, exist_ok=True)
    encoders = {spec.modality: {"backbone": backbone, "projection": {"kind": "identity"}}}
    (folder / "space.json").write_text(json.dumps({"format": 1, "name": POOLED, "dim": spec.dim, "encoders": encoders}))
    return str(folder)


def minilm_folder() -> str:
    """MiniLM with the small files that transformers asks for."""
    folder = FOLDER / "minilm"
    if not folder.exists():
        weights = fetch(WEIGHTS["minilm-l6"])
        making = folder.with_suffix(".part")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        for name in ("model.safetensors", "tokenizer.json", "config.json"):
            shutil.copy(weights / name, making / name)
        _write_tokenizer_settings(making)
        making.rename(folder)
    return str(folder)


def fastembed_folder() -> str:
    """MiniLM as a graph with the inputs that fastembed gives."""
    folder = FOLDER / "fastembed"
    if not (folder / "model.onnx").exists():
        import torch
        from safetensors.torch import load_file
        from transformers import BertConfig, BertModel

        weights = fetch(WEIGHTS["minilm-l6"])
        folder.mkdir(parents=True, exist_ok=True)
        bert: Any = BertModel(BertConfig.from_json_file(weights / "config.json"), add_pooling_layer=False)
        bert.eval()
        bert.load_state_dict(load_file(weights / "model.safetensors"), strict=False)  # all but an unused pooler

        class Hidden(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.bert = bert

            def forward(self, ids: Any, mask: Any, types: Any) -> Any:
                return self.bert(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state

        example = torch.ones((2, 5), dtype=torch.int64)
        names = ["input_ids", "attention_mask", "token_type_ids"]
        for name in ("tokenizer.json", "config.json"):
            shutil.copy(weights / name, folder / name)
        _write_tokenizer_settings(folder)
        torch.onnx.export(
            Hidden(),
            (example, example, example * 0),
            str(folder / "model.onnx"),
            dynamo=False,
            input_names=names,
            output_names=["last_hidden_state"],
            dynamic_axes={name: {0: "n", 1: "t"} for name in [*names, "last_hidden_state"]},
            opset_version=17,
        )
    return str(folder)


def rclip_data() -> str:
    """Make a data folder for rclip: our towers as graphs, the tokenizer, and files that it wants to see."""
    towers = RCLIP_DATA / RCLIP_TOWERS
    if (towers / "textual.onnx").exists():
        return str(RCLIP_DATA)
    import open_clip
    import torch

    towers.mkdir(parents=True, exist_ok=True)
    (RCLIP_DATA / "tokenizer").mkdir(exist_ok=True)
    for name in ("LICENSE", "OPENAI-CLIP-MIT.txt", "README.md", "THIRD_PARTY_NOTICES.md"):
        (RCLIP_DATA / name).write_text("for a benchmark\n")
    shutil.copy(Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz", RCLIP_DATA / "tokenizer")
    model: Any = open_clip.create_model(RCLIP_MODEL).eval()
    model.load_state_dict(torch.load(checkpoint(RCLIP_MODEL), weights_only=True))
    torch.backends.mha.set_fastpath_enabled(False)

    class Text(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, tokens: Any) -> Any:
            return self.model.encode_text(tokens)

    size = model.visual.image_size[0]
    for name, tower, example in (
        ("visual", model.visual, torch.randn(1, 3, size, size)),
        ("textual", Text(), torch.ones(1, 77, dtype=torch.long)),
    ):
        torch.onnx.export(
            tower,
            (example,),
            str(towers / f"{name}.onnx"),
            dynamo=False,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": {0: "n"}, "output": {0: "n"}},
            opset_version=17,
        )
    return str(RCLIP_DATA)


def _write_tokenizer_settings(folder: Path) -> None:
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    settings = {"model_max_length": MINILM_TOKENS, "tokenizer_class": "BertTokenizer", "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, **special}))
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": MINILM_TOKENS}))
