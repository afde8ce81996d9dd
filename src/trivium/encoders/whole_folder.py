"""Folders that are wholly there or not there: spaces, text models, classifiers."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def is_other(folder: Path, *, marker: str) -> bool:
    """Whether a path holds something that must not be replaced: anything but an empty folder or one with ``marker``."""
    return folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / marker).is_file()))


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Give a draft to write into, which takes the folder's place when the block ends; after an error nothing changes.

    Raises:
        OSError: If it cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield draft
        os.chmod(draft, 0o755)  # a temporary folder is its owner's alone, and so is what safetensors writes
        for file in draft.glob("*.safetensors"):
            file.chmod(0o644)
        if folder.exists():
            shutil.rmtree(folder)
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
