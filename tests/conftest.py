"""Fixtures that several packages' tests need: the real weights, a tiny CLIP, the slow reference implementations."""

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings

from trivium.encoders.weights import WEIGHTS, WeightsError, fetch

# A busy machine is not a bug: no time limit per example. No database: nothing is written into the checkout.
settings.register_profile("trivium", deadline=None, database=None)
settings.load_profile("trivium")


@pytest.fixture(autouse=True)
def usual_scheduling() -> Iterator[None]:
    """Undo what SVT-AV1, called as root, does to a thread that encodes: real-time priority, which children inherit."""
    yield
    if hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture(scope="session")
def weights() -> dict[str, Path]:
    """Folders of the real weights by name. Without them tests are skipped, or fail under TRIVIUM_REQUIRE_WEIGHTS."""
    try:
        return {name: fetch(pinned) for name, pinned in WEIGHTS.items()}
    except WeightsError as error:
        if os.environ.get("TRIVIUM_REQUIRE_WEIGHTS"):
            pytest.fail(f"TRIVIUM_REQUIRE_WEIGHTS is set, but: {error}")
        pytest.skip(f"no weights: {error}")


@pytest.fixture(scope="session")
def reference() -> Callable[[str], ModuleType]:
    """Load a module of tests/reference, which is no package, by its name."""

    def load(name: str) -> ModuleType:
        path = Path(__file__).parent / "reference" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"trivium_reference_{name}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("TRIVIUM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tiny_clip(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Make a CLIP of a few thousand weights, random by seed, which open_clip knows for this test; get our reference."""
    import open_clip
    import torch
    from open_clip import factory

    monkeypatch.setattr(factory, "_MODEL_CONFIG_PATHS", list(factory._MODEL_CONFIG_PATHS))
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", dict(factory._MODEL_CONFIGS))

    def make(name: str = "tiny", *, seed: int = 0, text: dict[str, Any] | None = None, **config: Any) -> str:
        vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
        texts = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2, **(text or {})}
        whole = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": texts, **config}
        (tmp_path / f"{name}.json").write_text(json.dumps(whole))
        open_clip.add_model_config(tmp_path / f"{name}.json")
        torch.manual_seed(seed)
        # Its class itself: `create_model` warns that such weights are random.
        is_custom = whole.pop("custom_text", False)
        made = (open_clip.CustomTextCLIP if is_custom else open_clip.CLIP)(**whole)
        checkpoint = tmp_path / f"{name}-{seed}.pt"
        torch.save(made.state_dict(), checkpoint)
        return f"open-clip:{name}/{checkpoint}"

    return make
