"""What a collection, a space or a model from elsewhere names is used if it is there; nothing is fetched for it."""

import json
import shutil
import socket
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from trivium.encoders import WeightsError
from trivium.encoders.clip.model import OpenClip
from trivium.encoders.networks.fetching import fetching_for, forbidden_by
from trivium.pipeline.collection import Collection
from trivium.pipeline.space.config import SpaceError, read_space_config
from trivium.pipeline.space.joint import load_space

REFERENCE = "open-clip:hf-hub:org/tiny"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, hub_cache: Path) -> list[object]:
    """A Hub that may be asked, as far as the settings go; what tries to is listed, and fails."""
    from huggingface_hub import constants

    tried: list[object] = []

    def connect(_: object, address: object) -> None:
        tried.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between the Hub's attempts
    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: connect(None, address))
    return tried


def named_in(collection: Collection, source: str) -> Path:
    """Let a collection's database name a space."""
    collection.close()
    db = sqlite3.connect(collection.folder / "collection.db")
    with db:
        db.execute("UPDATE space SET source = ?", (source,))
    db.close()
    (collection.folder / "collection.db.sha256").unlink(missing_ok=True)
    return collection.folder


@pytest.mark.parametrize(
    "source",
    [f"{REFERENCE}", f"{REFERENCE}@{'0' * 40}", "open-clip:ViT-B-32/laion2b_s34b_b79k", "open-clip:RN50/openai"],
)
def test_a_collection_makes_nobody_fetch(
    collection: Collection,
    network: list[object],
    source: str,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # where open_clip keeps what comes from no hub
    status, _, err = run("search", str(named_in(collection, source)), "a dog")
    told = " ".join(err.split())
    assert status == 1
    assert f"if you want '{source}', run `trivium pull {source}` first" in told
    assert network == []


def test_what_the_user_names_may_be_fetched(network: list[object]) -> None:
    with pytest.raises(WeightsError, match=r"cannot be had from the Hub|cannot be reached"):
        load_space(REFERENCE)
    assert network != []


def test_what_is_in_the_cache_is_used(hub_clip: Callable[..., Path], tmp_path: Path, media: Path) -> None:
    hub_clip()
    made = Collection.open(tmp_path / "clip", space=REFERENCE)
    made.add(media / "red.png")
    made.close()
    assert len(Collection.open(tmp_path / "clip").search(text="a red sign")) == 1


def test_a_space_folder_makes_nobody_fetch(network: list[object], tmp_path: Path) -> None:
    """Nor does a folder of open_clip's files, whose config names others on the Hub."""
    entry = {"backbone": f"{REFERENCE}@{'0' * 40}", "revision": "0" * 12, "projection": {"kind": "identity"}}
    (tmp_path / "space").mkdir()
    (tmp_path / "space" / "space.json").write_text(
        json.dumps({"format": 1, "name": "theirs", "dim": 16, "encoders": {"text": entry}})
    )
    with pytest.raises(WeightsError, match=f"run `trivium pull {REFERENCE}@{'0' * 40}` first"):
        load_space(tmp_path / "space").encode("text", ["a dog"])
    assert network == []


def test_a_folder_of_open_clips_makes_nobody_fetch(
    hub_clip: Callable[..., Path], network: list[object], tmp_path: Path
) -> None:
    shutil.copytree(hub_clip(), tmp_path / "model")
    path = tmp_path / "model" / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["text_cfg"] = {"hf_model_name": "x/y"}
    path.write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="nothing is fetched because a collection, space or model from elsewhere"):
        OpenClip(f"open-clip:local-dir:{tmp_path / 'model'}")
    assert network == []


@pytest.mark.parametrize("source", ["", "relative", "./here", "..", "text-model:x", "//host/share", "\\\\host\\share"])
def test_a_collection_names_known_spaces_and_whole_paths_only(
    collection: Collection, source: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "relative").mkdir()
    (tmp_path / "relative" / "space.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    status, _, err = run("search", str(named_in(collection, source)), "a dog")
    told = " ".join(err.split())
    assert status == 1
    assert "stands for the space, and is none here: known are trivium-base, trivium-labels" in told
    assert "Name the space yourself (--space)" in told


def test_a_folder_that_a_collection_names_is_read_as_a_space(collection: Collection, tmp_path: Path, run: Run) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "space.json").write_text("[" * 100_000)
    status, _, err = run("search", str(named_in(collection, str(tmp_path / "odd"))), "a dog")
    assert status == 1
    assert "nested too deeply" in " ".join(err.split())
    status, _, err = run("search", str(named_in(collection, str(tmp_path / "none"))), "a dog")
    assert status == 1
    assert "no space" in err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(
            ({"backbone": f"text-model:{name}", "revision": "r"}, "with a text model in the space's folder")
            for name in ("", ".", "..", "../s", "/etc", "file", "out")
        ),
        ({"backbone": 3}, "unknown backbone 3"),
        ({"backbone": "open-clip:RN50/openai", "revision": "../../x"}, "'../../x' is no revision"),
        ({"backbone": "open-clip:RN50/openai", "revision": "/abs"}, "'/abs' is no revision"),
        *(
            ({"projection": {"kind": "linear", "weights": name}}, r"no file .* in the space's folder")
            for name in ("", ".", "..", "/etc/passwd", "a/b", "nothing", 3, None, ["w"])
        ),
        ({"projection": {"kind": "linear", "weights": "link"}}, "link is a link that leads out of its folder"),
        ({"projection": {"kind": "linear", "weights": "out"}}, "out is a link that leads out of its folder"),
        ({"projection": {"kind": ["linear"]}}, "projection.kind must be one of"),
        (
            {"projection": {"kind": "head", "weights": "file", "inputs": ["pooled"] * 65}},
            "inputs must be a list of names",
        ),
        (
            {"projection": {"kind": "labels", "labels": "file", "temperature": 1e-300}},
            "temperature must be 0.0001 to 10000, got 1e-300",
        ),
    ],
)
def test_names_in_a_space_stay_in_its_folder(tmp_path: Path, change: dict[str, object], message: str) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / "file").write_text("{}")
    (tmp_path / "secret").mkdir()
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "link").symlink_to("/etc/passwd")
    entry = {"backbone": "minilm-l6", "projection": {"kind": "identity"}} | change
    (folder / "space.json").write_text(json.dumps({"format": 1, "name": "s", "dim": 4, "encoders": {"text": entry}}))
    with pytest.raises(SpaceError, match=message):
        read_space_config(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": True}, "dim must be 1 to 65536, got True"),
        ({"dim": [[[]]]}, "dim must be 1 to 65536, got list"),
        ({"name": "a\x1b[2Jb"}, r"name must be a word, got 'a\\x1b\[2Jb'"),
        ({"name": "x" * 201}, "name must be a word"),
        ({"description": 3}, "description must be a text"),
        ({"encoders": {str(number): 1 for number in range(30)}}, "unknown modality '0', .*; and 10 more"),
    ],
)
def test_odd_facts_of_a_space(tmp_path: Path, change: dict[str, object], message: str) -> None:
    entry = {"backbone": "minilm-l6", "projection": {"kind": "identity"}}
    raw = {"format": 1, "name": "s", "dim": 4, "encoders": {"text": entry}} | change
    (tmp_path / "space.json").write_text(json.dumps(raw))
    with pytest.raises(SpaceError, match=message):
        read_space_config(tmp_path)


def test_who_is_asked_for_is_remembered_only_meanwhile(monkeypatch: pytest.MonkeyPatch, hub_cache: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between the Hub's attempts
    monkeypatch.delenv("TRIVIUM_OFFLINE", raising=False)
    with fetching_for("a", is_named=False):
        assert "run `trivium pull a` first" in str(forbidden_by())
        with fetching_for("b", is_named=True):
            assert forbidden_by() is None
        assert forbidden_by() is not None
    assert forbidden_by() is None
