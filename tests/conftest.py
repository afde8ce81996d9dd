"""Fixtures that several packages' tests need: the real weights, a tiny CLIP, the slow reference implementations."""

import importlib.util
import json
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings

# Tests that run beside each other share the cores: threads that wait for each other cost more than they bring. Before
# torch is imported, which reads it once; programs that tests start inherit it.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    beside = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // beside)))

from trivium.encoders.base import WeightsError
from trivium.encoders.networks.weights import WEIGHTS, fetch

# What a shell runs in the background ignores Ctrl-C, and so would all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is not a bug: no time limit per example. No database: nothing is written into the checkout.
settings.register_profile("trivium", deadline=None, database=None)
settings.load_profile("trivium")


@pytest.fixture(autouse=True)
def usual_scheduling() -> Iterator[None]:
    """Undo what SVT-AV1, called as root, does to a thread that encodes: real-time priority, which children inherit."""
    yield
    if hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture(autouse=True, scope="session")
def own_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what Trivium keeps among the user's data (the key that seals index files) out of the tester's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


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


@pytest.fixture
def hub_cache(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the Hugging Face Hub of this test's own, and no network behind it."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.fixture
def hub_clip(hub_cache: Path) -> Callable[..., Path]:
    """Make a random CLIP as open_clip itself writes it for the Hub, in the Hub's cache; get the snapshot's folder."""
    import open_clip
    import torch
    from open_clip.push_to_hf_hub import save_for_hf

    class Nothing:
        def save_pretrained(self, folder: Path) -> None:
            """Write none: CLIP's own tokenizer."""

    def make(
        repo: str = "org/tiny",
        *,
        commit: str = "0" * 40,
        seed: int = 0,
        text: dict[str, Any] | None = None,
        vision: dict[str, Any] | None = None,
        picture: dict[str, Any] | None = None,
        tokenizer: Any = None,
        **config: Any,
    ) -> Path:
        sizes = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8, **(vision or {})}
        words = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2, **(text or {})}
        whole = {"embed_dim": 16, "vision_cfg": sizes, "text_cfg": words, **config}
        torch.manual_seed(seed)
        given = {key: value for key, value in whole.items() if key != "custom_text"}
        made = (open_clip.CustomTextCLIP if "custom_text" in whole else open_clip.CLIP)(**given)
        open_clip.set_model_preprocess_cfg(
            made, {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "interpolation": "bilinear", **(picture or {})}
        )
        kept = hub_cache / f"models--{repo.replace('/', '--')}"
        folder = kept / "snapshots" / commit
        save_for_hf(made, tokenizer or Nothing(), whole, str(folder), safe_serialization=True)
        (kept / "refs").mkdir(exist_ok=True)
        (kept / "refs" / "main").write_text(commit)
        return folder

    return make


@pytest.fixture
def tiny_clap(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Make a random CLAP of open_clip's, which knows it for this test; get our reference. Skips where none can be made.

    Its blocks are one second long.
    """
    pytest.importorskip("open_clip.audio", reason="the installed open_clip has no audio towers")
    pytest.importorskip("torchlibrosa")
    import open_clip
    import torch
    from open_clip import factory
    from open_clip.audio import tower

    monkeypatch.setattr(factory, "_MODEL_CONFIG_PATHS", list(factory._MODEL_CONFIG_PATHS))
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", dict(factory._MODEL_CONFIGS))
    monkeypatch.setitem(
        tower._HTSAT_CONFIGS, "nano", {"embed_dim": 8, "depths": [2, 2, 1, 1], "num_heads": [1, 2, 4, 8]}
    )

    def make(
        name: str = "tiny-clap",
        *,
        change: Callable[[Any], None] | None = None,
        text: dict[str, Any] | None = None,
        **audio: Any,
    ) -> str:
        texts = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
        sounds = {"model_name": "nano", "class_num": 5, "clip_samples": 48_000, **audio}
        whole = {"embed_dim": 16, "audio_cfg": sounds, "text_cfg": texts if text is None else text}
        (tmp_path / f"{name}.json").write_text(json.dumps(whole))
        open_clip.add_model_config(tmp_path / f"{name}.json")
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of meshgrid, in HTSAT
            made = open_clip.create_model(name, pretrained_text=False)
        # As if trained: decibels are about -40, and without this all sounds look alike.
        made.audio.encoder.bn0.running_mean.normal_(-30, 5)
        made.audio.encoder.bn0.running_var.uniform_(100, 300)
        if change is not None:
            change(made)
        checkpoint = tmp_path / f"{name}.pt"
        torch.save(made.state_dict(), checkpoint)
        return f"open-clip:{name}/{checkpoint}"

    return make
