"""How a file is named in a collection: one name each, however it is reached.

The name is the physical path: absolute, every link followed, ``..`` as the system takes it (after a link, what that
leads to). So a folder that is indexed through a link and by itself is one folder. Names are kept byte for byte as the
disk has them; accents that are composed otherwise are made equal where names are compared (`store.filters`).

Collections of earlier versions may have names that go through links: they are searched and removed by these too, and
the next indexing names them anew (`ingest.ingestion`).
"""

import os

from trivium.encoders.several import OnePath, path_of


def named(path: OnePath) -> str:
    """Return the name of the file or folder that a path leads to, which need not be there.

    Raises:
        ValueError: If the path is empty, or has a NUL.
    """
    return os.path.realpath(path_of(path, "path"))


def names_of(path: OnePath) -> tuple[str, ...]:
    """Return what a path may be named: as `named` has it, and as it is written, made absolute.

    The second is of collections of earlier versions, and of links that lead elsewhere by now.

    Raises:
        ValueError: If the path is empty, or has a NUL.
    """
    return tuple(dict.fromkeys((named(path), os.path.abspath(path))))


class Naming:
    """Names many files, and looks at each folder once."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def of(self, path: str) -> str:
        """Do what `named` does.

        Raises:
            ValueError: If the path has a NUL.
        """
        found = self.in_folder(path)
        return os.path.realpath(found) if os.path.basename(found) in ("..", ".", "") or os.path.islink(found) else found

    def in_folder(self, path: str) -> str:
        """Return a path with its folder as `named` has it; the file itself may be a link by now, or gone."""
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return os.path.join(self._folders[folder], name)
