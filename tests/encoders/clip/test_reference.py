"""Models of the Hugging Face Hub, and folders with the same files, against open_clip itself."""

import hashlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from trivium.encoders import WeightsError
from trivium.encoders.base import Modality
from trivium.encoders.clip.model import OpenClip
from trivium.encoders.devices import PLAIN

HubClip = Callable[..., Path]
TEXTS = ["a photo of a cat", "Dog", "Ein Haus am See &amp; ein Boot", "a long caption " * 40]
REFERENCE = "open-clip:hf-hub:org/tiny"
EXACT = 1e-5  # float32 sums in another order


def pooled(clip: OpenClip, modality: Modality, items: list[Any], *, device: str = PLAIN) -> NDArray[np.float32]:
    """In torch: how graphs are made of towers, which takes seconds, is for test_open_clip.py."""
    backbone = clip.backbone(modality, device=device)
    return backbone.features(backbone.prepare_all(items)).pooled


def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


def assert_is_open_clips(reference: str, name: str, folder: Path) -> None:
    """Compare both towers with what open_clip makes of the same folder, by its own loading and preprocessing."""
    clip = OpenClip(reference)
    own, _, transform = open_clip.create_model_and_transforms(name)
    tokenizer = open_clip.get_tokenizer(name)
    with torch.inference_mode():
        texts = own.eval().encode_text(tokenizer(TEXTS)).numpy()
        image = own.encode_image(transform(Image.fromarray(pixels())).unsqueeze(0)).numpy()
    np.testing.assert_allclose(pooled(clip, "text", TEXTS), texts, atol=EXACT)
    np.testing.assert_allclose(pooled(clip, "image", [pixels()]), image, atol=EXACT)


def test_a_model_of_the_hub_is_open_clips(hub_clip: HubClip) -> None:
    assert_is_open_clips(REFERENCE, "hf-hub:org/tiny", hub_clip())


def test_a_folder_is_open_clips(hub_clip: HubClip, tmp_path: Path) -> None:
    folder = tmp_path / "My model v1.5"
    shutil.copytree(hub_clip(custom_text=True, text={"no_causal_mask": True}, quick_gelu=True), folder)
    reference = f"open-clip:local-dir:{folder}"
    assert_is_open_clips(reference, f"local-dir:{folder}", folder)
    assert OpenClip(reference).facts.space_name == "open-clip:local-dir:My model v1.5"


def test_the_config_brings_the_preprocessing(hub_clip: HubClip) -> None:
    hub_clip(picture={"resize_mode": "squash"})
    facts = OpenClip(REFERENCE).facts
    assert (facts.mean, facts.std) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert (facts.side, facts.interpolation, facts.resize_mode) == (32, "bilinear", "squash")


def test_a_branch_is_pinned_to_its_commit(hub_clip: HubClip) -> None:
    hub_clip()
    first = OpenClip(REFERENCE)
    assert first.reference == f"{REFERENCE}@{'0' * 40}"
    assert first.facts.space_name == REFERENCE
    hub_clip(commit="1" * 40, seed=1)  # the branch moves on
    second = OpenClip(REFERENCE)
    assert second.reference == f"{REFERENCE}@{'1' * 40}"
    assert second.facts.revision != first.facts.revision
    again = OpenClip(first.reference)
    assert (again.reference, again.facts) == (first.reference, first.facts)
    np.testing.assert_array_equal(pooled(again, "text", TEXTS), pooled(first, "text", TEXTS))


def test_a_commit_that_changes_no_vector_is_the_same_space(hub_clip: HubClip) -> None:
    hub_clip()
    first = OpenClip(REFERENCE).facts
    hub_clip(commit="1" * 40)
    assert OpenClip(REFERENCE).facts.revision == first.revision


def test_an_edited_folder_is_seen(hub_clip: HubClip, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(hub_clip(), folder)
    reference = f"open-clip:local-dir:{folder}"
    first = OpenClip(reference).facts.revision
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["mean"] = [0.1, 0.1, 0.1]
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    assert OpenClip(reference).facts.revision != first


def test_weights_as_a_checkpoint(hub_clip: HubClip) -> None:
    folder = hub_clip()
    texts = pooled(OpenClip(REFERENCE), "text", TEXTS)
    made = open_clip.create_model("hf-hub:org/tiny")
    (folder / "open_clip_model.safetensors").unlink()
    torch.save(made.state_dict(), folder / "open_clip_pytorch_model.bin")
    np.testing.assert_array_equal(pooled(OpenClip(REFERENCE), "text", TEXTS), texts)


class Planted:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_checkpoint_is_never_unpickled(hub_clip: HubClip, tmp_path: Path) -> None:
    folder = hub_clip()
    (folder / "open_clip_model.safetensors").unlink()
    torch.save({"state_dict": Planted(tmp_path / "ran")}, folder / "open_clip_pytorch_model.bin")
    told = refusal(REFERENCE)
    assert "cannot be loaded as open_clip's hf-hub:org/tiny: it holds more than tensors" in told
    assert "weights_only" not in told
    assert not (tmp_path / "ran").exists()


def test_what_is_known_needs_neither_torch_nor_the_hubs_client(hub_clip: HubClip, hub_cache: Path) -> None:
    hub_clip()
    pooled(OpenClip(REFERENCE), "text", TEXTS, device="cpu")
    script = (
        "import sys; from huggingface_hub import constants; "
        f"constants.HF_HUB_CACHE = {str(hub_cache)!r}; from trivium.encoders.clip.model import OpenClip; "
        f"b = OpenClip({REFERENCE!r}).backbone('text'); "
        "assert b.features([b.prepare('a bird')]).pooled.shape == (1, 16); "
        "assert not {'torch', 'open_clip', 'timm', 'transformers', 'huggingface_hub.file_download'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# What is refused, and the network.


def refusal(reference: str) -> str:
    with pytest.raises(WeightsError) as caught:
        OpenClip(reference)
    return str(caught.value)


@pytest.mark.parametrize(
    "said", ["", "/x", "a/b/c", "../../etc", "a..b/c", "org/", "org/name@", "org/name@../x", "a b"]
)
def test_half_a_name(said: str, hub_cache: Path) -> None:
    assert "is no model of the Hub: write open-clip:hf-hub:ORG/NAME, or ORG/NAME@COMMIT" in refusal(
        f"open-clip:hf-hub:{said}"
    )


@pytest.mark.parametrize("variable", ["TRIVIUM_OFFLINE", "HF_HUB_OFFLINE"])
def test_what_is_not_in_the_cache_is_not_fetched_offline(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", variable == "HF_HUB_OFFLINE")
    if variable == "TRIVIUM_OFFLINE":
        monkeypatch.setenv(variable, "1")
    assert refusal("open-clip:hf-hub:org/absent") == (
        f"the files of org/absent (main) are not in the Hugging Face cache {hub_cache}, and {variable} forbids "
        "fetching them. Where there is a network, run `hf download org/absent open_clip_config.json "
        "open_clip_model.safetensors`, then copy the folder models--org--absent from the cache there to this one"
    )
    pinned = refusal(f"open-clip:hf-hub:org/absent@{'a' * 40}")
    assert f"open_clip_model.safetensors --revision {'a' * 40}`" in pinned


def test_folders_that_are_none(hub_clip: HubClip, tmp_path: Path) -> None:
    assert "must name a folder by its absolute path" in refusal("open-clip:local-dir:./here")
    assert f"{tmp_path} is no folder of an open_clip model: it has no open_clip_config.json" in refusal(
        f"open-clip:local-dir:{tmp_path}"
    )
    folder = hub_clip()
    (folder / "open_clip_model.safetensors").rename(folder / "x.safetensors")
    assert f"{folder} has no weights: none of open_clip_model.safetensors" in refusal(f"open-clip:local-dir:{folder}")


@pytest.mark.parametrize("config", ["{", "[]", "{}", '{"model_cfg": []}', '{"model_cfg": {"embed_dim": 16}}'])
def test_configs_that_are_none(hub_clip: HubClip, config: str) -> None:
    (hub_clip() / "open_clip_config.json").write_text(config)
    assert "open_clip_config.json" in refusal(REFERENCE)


def test_a_config_that_reaches_further_is_refused(hub_clip: HubClip, hub_cache: Path) -> None:
    path = hub_clip() / "open_clip_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({"model_cfg": {**config["model_cfg"], "vision_cfg": {"timm_model_name": "hf-hub:x/y"}}}))
    assert "refers to another repository, which is not followed" in refusal(REFERENCE)
    path.write_text(json.dumps({"model_cfg": {**config["model_cfg"], "text_cfg": {"hf_model_name": "x/y"}}}))
    assert "run `hf download x/y config.json`" in refusal(REFERENCE)
    kept = hub_cache / "models--x--y"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("2" * 40)
    (kept / "snapshots" / ("2" * 40)).mkdir(parents=True)
    (kept / "snapshots" / ("2" * 40) / "config.json").write_text(
        '{"model_type": "mine", "auto_map": {"AutoConfig": "x"}}'
    )
    assert "the text tower x/y is of type 'mine', which needs code of its own" in refusal(REFERENCE)
    del config["model_cfg"]["vision_cfg"]
    path.write_text(json.dumps(config))
    assert "has neither a picture nor an audio tower: embed_dim, text_cfg" in refusal(REFERENCE)


def test_missing_tensors_are_listed(hub_clip: HubClip) -> None:
    path = hub_clip() / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["vision_cfg"]["layers"] = 3
    path.write_text(json.dumps(config))
    assert 'Missing key(s) in state_dict: "visual.transformer.resblocks.2.ln_1.weight"' in refusal(REFERENCE)


@pytest.fixture
def hub(hub_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, Path], list[str]]]:
    """A Hub on this machine: serves folders as repositories, and lists what it was asked for."""
    from huggingface_hub import constants

    repositories: dict[str, Path] = {}
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            repo, resolve, rest = self.path.lstrip("/").partition("/resolve/")
            revision, _, name = rest.partition("/")
            asked.append(f"{self.command} {repo} {revision[:4]} {name}")
            folder = repositories.get(repo)
            if not resolve or folder is None or revision not in ("main", "5" * 40):
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound" if folder is None else "RevisionNotFound")
                body = b""
            elif not (folder / name).is_file():
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("X-Repo-Commit", "5" * 40)
                body = b""
            else:
                body = (folder / name).read_bytes()
                self.send_response(200)
                self.send_header("X-Repo-Commit", "5" * 40)
                self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)

    def serve(repo: str, folder: Path) -> list[str]:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        repositories[repo] = tmp_path / "served" / repo
        shutil.move(folder, repositories[repo])
        shutil.rmtree(hub_cache)
        return asked

    yield serve
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_download_is_of_what_is_needed_and_once(hub_clip: HubClip, hub: Callable[..., list[str]]) -> None:
    folder = hub_clip()
    expected = pooled(OpenClip(REFERENCE), "text", TEXTS)
    (folder / "pytorch_model.bin").write_bytes(b"of another library")
    asked = hub("org/tiny", folder)
    told: list[str] = []
    clip = OpenClip(REFERENCE, announce=told.append)
    assert clip.reference == f"{REFERENCE}@{'5' * 40}"
    assert told[0] == "fetching org/tiny (main) from the Hugging Face Hub (once)"
    of_files = {line for line in asked if "org/tiny" in line}
    assert {line.rpartition(" ")[2] for line in of_files} == {"open_clip_config.json", "open_clip_model.safetensors"}
    np.testing.assert_array_equal(pooled(clip, "text", TEXTS), expected)
    asked.clear()
    assert OpenClip(REFERENCE).facts == clip.facts
    assert OpenClip(clip.reference).facts == clip.facts
    assert not asked


def test_what_the_hub_has_not_is_told(hub_clip: HubClip, hub: Callable[..., list[str]]) -> None:
    folder = hub_clip()
    (folder / "open_clip_model.safetensors").unlink()
    hub("org/tiny", folder)
    assert "has no weights: no open_clip_model.safetensors and no open_clip_pytorch_model.bin" in refusal(REFERENCE)
    assert "open_clip_config.json of org/absent (main) cannot be had from the Hub: 404" in refusal(
        "open-clip:hf-hub:org/absent"
    )
    assert f"({'6' * 40}) cannot be had from the Hub: 404" in refusal(f"{REFERENCE}@{'6' * 40}")


def test_a_repository_that_is_no_open_clip_model(hub_clip: HubClip, hub: Callable[..., list[str]]) -> None:
    folder = hub_clip()
    (folder / "open_clip_config.json").unlink()
    hub("org/tiny", folder)
    assert "the repository org/tiny (main) has no open_clip_config.json: it is no model for open_clip" in refusal(
        REFERENCE
    )
