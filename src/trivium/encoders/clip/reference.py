"""Where an open_clip model's config and weights are, by its reference; imports neither torch nor open_clip.

open-clip:MODEL/TAG                 an architecture and weights that open_clip knows
open-clip:MODEL//folder/file.pt     an architecture, and a local checkpoint of it
open-clip:hf-hub:ORG/NAME[@COMMIT]  a repository of the Hugging Face Hub, with a config of its own
open-clip:local-dir:/folder         a folder with the files of such a repository
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trivium.encoders.base import WeightsError
from trivium.encoders.clip.hub import CONFIG_FILE, Snapshot, hub_snapshot

PREFIX = "open-clip:"
HUB, FOLDER = "hf-hub:", "local-dir:"  # as open_clip spells them
HUB_NAME = re.compile(r"(?P<repo>\w[\w.-]*(/\w[\w.-]*)?)(@(?P<revision>\w[\w./-]*))?", re.ASCII)
# In the order in which open_clip takes them.
FOLDER_WEIGHTS = (
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"),
    *("open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth"),
    *("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSource:
    """A model that was found, as far as can be told without loading it."""

    reference: str  # which names the same weights for good, where it can
    name: str  # MODEL, ``hf-hub:ORG/NAME`` or ``local-dir:``
    pretrained: str  # a tag, the path of a checkpoint, a commit, a folder
    snapshot: Snapshot | None = None  # if it brings its own config
    state: str = ""  # changes when the file of weights does; a tag's do not

    @property
    def model(self) -> str:
        """What open_clip calls the model: its own name, or the folder with its config."""
        return self.name if self.snapshot is None else f"{FOLDER}{self.snapshot.folder}"


def locate(reference: str, *, announce: Callable[[str], None] | None = None) -> ClipSource:
    """Find a model; one of the Hub is downloaded if the Hub's cache has it not.

    Args:
        reference: See the module's docstring.
        announce: Called with one line before a download.

    Raises:
        WeightsError: If the reference is none, or names what is not there.
    """
    said = reference.removeprefix(PREFIX)
    if said.startswith(HUB):
        return _of_hub(reference, said.removeprefix(HUB), announce)
    if said.startswith(FOLDER):
        return _of_folder(reference, Path(said.removeprefix(FOLDER)))
    name, slash, pretrained = said.partition("/")
    if not slash or not name or not pretrained:
        raise WeightsError(f"'{reference}' is no open_clip model: write {PREFIX}MODEL/PRETRAINED, or a path after /")
    path = Path(pretrained)
    state = _state(path) if path.is_absolute() else ""
    return ClipSource(reference=reference, name=name, pretrained=pretrained, state=state)


def _of_hub(reference: str, said: str, announce: Callable[[str], None] | None) -> ClipSource:
    parts = HUB_NAME.fullmatch(said)
    if parts is None or ".." in said or "--" in parts["repo"]:
        raise WeightsError(f"'{reference}' is no model of the Hub: write {PREFIX}{HUB}ORG/NAME, or ORG/NAME@COMMIT")
    repo = parts["repo"]
    snapshot = hub_snapshot(repo, parts["revision"] or "main", announce=announce)
    return ClipSource(
        reference=f"{PREFIX}{HUB}{repo}@{snapshot.commit}",
        name=f"{HUB}{repo}",
        pretrained=snapshot.commit,
        snapshot=snapshot,
        state=_state(snapshot.weights),
    )


def _of_folder(reference: str, folder: Path) -> ClipSource:
    if not folder.is_absolute():
        raise WeightsError(f"'{reference}' must name a folder by its absolute path")
    if not (folder / CONFIG_FILE).is_file():
        raise WeightsError(f"{folder} is no folder of an open_clip model: it has no {CONFIG_FILE}")
    weights = next((folder / name for name in FOLDER_WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise WeightsError(f"{folder} has no weights: none of {', '.join(FOLDER_WEIGHTS)}")
    return ClipSource(
        reference=reference,
        name=FOLDER,
        pretrained=str(folder),
        snapshot=Snapshot(folder=folder, weights=weights, commit=""),
        # The config may be edited; a commit's never changes.
        state=f"{_state(weights)}-{_state(folder / CONFIG_FILE)}",
    )


def _state(path: Path) -> str:
    try:
        status = path.stat()
    except OSError as error:
        raise WeightsError(f"there is no checkpoint {path}: {error.strerror}") from error
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"
