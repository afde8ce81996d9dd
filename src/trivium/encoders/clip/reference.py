"""Where an open_clip model's config and weights are, by its reference; imports neither torch nor open_clip.

open-clip:MODEL/TAG                 an architecture and weights that open_clip knows
open-clip:MODEL//folder/file.pt     an architecture, and a local checkpoint of it
open-clip:hf-hub:ORG/NAME[@COMMIT]  a repository of the Hugging Face Hub, with a config of its own
open-clip:local-dir:/folder         a folder with the files of such a repository

Models of the Hub go through its own cache: what is there needs no network, and is not asked for again. A branch means
the commit that the cache knows for it (`hf download` brings another). Weights are safetensors where the repository has
them; else a checkpoint that is read as tensors only.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trivium.encoders.base import WeightsError
from trivium.encoders.networks.fetching import forbidden_by

PREFIX = "open-clip:"
HUB, FOLDER = "hf-hub:", "local-dir:"  # as open_clip spells them
HUB_NAME = re.compile(r"(?P<repo>\w[\w.-]*(/\w[\w.-]*)?)(@(?P<revision>\w[\w./-]*))?", re.ASCII)
# In the order in which open_clip takes them.
FOLDER_WEIGHTS = (
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"),
    *("open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth"),
    *("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth"),
)
CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # as open_clip looks for them
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A folder with a model's config, and its weights."""

    folder: Path
    weights: Path
    commit: str  # 40 hex digits; empty if it is of no repository


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


def hub_snapshot(repo: str, revision: str, *, announce: Callable[[str], None] | None = None) -> Snapshot:
    """Return a model's files, downloaded if the cache does not have them.

    Args:
        repo: ``ORG/NAME``.
        revision: A commit, branch or tag.
        announce: Called with one line before a download.

    Raises:
        WeightsError: If they cannot be had.
    """
    folder = cached_folder(repo, revision, CONFIG_FILE)
    if folder is None or not any((folder / name).is_file() for name in WEIGHTS_FILES):
        if announce is not None and forbidden_by() is None:
            announce(f"fetching {repo} ({revision}) from the Hugging Face Hub (once)")
        config = _downloaded(repo, revision, CONFIG_FILE, wanted=[CONFIG_FILE, WEIGHTS_FILES[0]])
        if config is None:
            raise WeightsError(f"the repository {repo} ({revision}) has no {CONFIG_FILE}: it is no model for open_clip")
        folder = config.parent
        # Of the same commit, whatever is pushed meanwhile.
        if not any(_downloaded(repo, folder.name, name, wanted=WEIGHTS_FILES[:1]) for name in WEIGHTS_FILES):
            raise WeightsError(
                f"the repository {repo} ({revision}) has no weights: no {' and no '.join(WEIGHTS_FILES)}"
            )
    weights = next(folder / name for name in WEIGHTS_FILES if (folder / name).is_file())
    return Snapshot(folder=folder, weights=weights, commit=folder.name)


def hub_files(
    repo: str, names: Sequence[str], *, revision: str = "main", announce: Callable[[str], None] | None = None
) -> Path:
    """Return the folder of those of some files that a repository has, downloaded if the cache does not have the first.

    Raises:
        WeightsError: If it has not even the first, or that cannot be had.
    """
    folder = cached_folder(repo, revision, names[0])
    if folder is not None:
        return folder
    if announce is not None and forbidden_by() is None:
        announce(f"fetching {names[0]} of {repo} from the Hugging Face Hub (once)")
    first = _downloaded(repo, revision, names[0], wanted=names[:2])  # the others may well be absent
    if first is None:
        raise WeightsError(f"the repository {repo} ({revision}) has no {names[0]}")
    for name in names[1:]:
        _downloaded(repo, first.parent.name, name, wanted=names[:2])
    return first.parent


def cached_folder(repo: str, revision: str, name: str) -> Path | None:
    """Return the folder of a revision in the Hub's cache, if that has a file of this name."""
    kept = _repo_folder(repo)
    commit = revision
    if COMMIT.fullmatch(revision) is None:
        try:
            commit = (kept / "refs" / revision).read_text().strip()
        except (OSError, ValueError):
            return None
    folder = kept / "snapshots" / commit
    return folder if commit and (folder / name).is_file() else None


def _downloaded(repo: str, revision: str, name: str, *, wanted: Sequence[str]) -> Path | None:
    """Return a file of a repository; None if that has none of this name."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    reason = forbidden_by()
    if reason is not None:
        raise WeightsError(_missing(repo, revision, wanted, reason))
    try:
        return Path(hf_hub_download(repo, name, revision=revision, cache_dir=constants.HF_HUB_CACHE))
    except LocalEntryNotFoundError as error:
        why = f"the Hub cannot be reached ({_one_line(error)})"
        raise WeightsError(_missing(repo, revision, wanted, why)) from error
    except EntryNotFoundError:
        return None
    except Exception as error:  # of the Hub (no such repository, no rights), of the network, of the disk
        raise WeightsError(f"{name} of {repo} ({revision}) cannot be had from the Hub: {_one_line(error)}") from error


def _missing(repo: str, revision: str, wanted: Sequence[str], why: str) -> str:
    kept = _repo_folder(repo)
    pinned = "" if revision == "main" else f" --revision {revision}"
    return (
        f"the files of {repo} ({revision}) are not in the Hugging Face cache {kept.parent}, and {why}. Where there is "
        f"a network, run `hf download {repo} {' '.join(wanted)}{pinned}`, then copy the folder {kept.name} from the "
        "cache there to this one"
    )


def _repo_folder(repo: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:400] or type(error).__name__
