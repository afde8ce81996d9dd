"""FAISS's file format: written piece by piece, read whole or mapped, checked against what is expected."""

import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from trivium.indexes.anatomy import Anatomy, faiss
from trivium.indexes.kinds import Kind

_PIECE_BYTES = 2**20
_IDS_CHECKED = 1024


def write_faiss(index: Any, write: Callable[[bytes], object]) -> None:
    """Hand the file of ``index`` to ``write`` in pieces; see `FaissIndex.write`.

    `faiss.write_index` with a path reports success on a full disk; what ``write`` raises comes out of here.
    """
    failure: list[BaseException] = []

    def piece(data: bytes) -> None:
        try:
            write(data)
        except BaseException as error:
            failure.append(error)
            raise

    try:
        faiss.write_index(index, faiss.PyCallbackIOWriter(piece, _PIECE_BYTES))
    except Exception:
        # FAISS is left by a C++ exception, which may come out as another one.
        if failure:
            raise failure[0] from None
        raise


def read_faiss(path: str | os.PathLike[str], *, kind: Kind, dim: int, mapped: bool) -> Any:
    """Return the `faiss.IndexIDMap` in the file; see `FaissIndex.read`."""
    path = os.fspath(path)
    with open(path, "rb") as file:  # FAISS's own message for a missing file names no cause
        os.fstat(file.fileno())
    try:
        whole = faiss.read_index(path, faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    except RuntimeError as error:
        raise ValueError(f"{path} cannot be read as an index, FAISS says: {_reason(error)}") from error
    if type(whole) is not faiss.IndexIDMap:
        raise ValueError(f"{path} must hold an IndexIDMap, got {type(whole).__name__}")
    if whole.d != dim:
        raise ValueError(f"{path} holds vectors of width {whole.d}, expected {dim}")
    inner = Anatomy.of(whole.index)
    if (whole.metric_type, inner.inner.metric_type) != (faiss.METRIC_INNER_PRODUCT, faiss.METRIC_INNER_PRODUCT):
        raise ValueError(f"{path} is no index by inner product: FAISS's metric {inner.inner.metric_type}")
    template = faiss.index_factory(dim, kind.factory(0, dim), faiss.METRIC_INNER_PRODUCT)
    found, expected = inner.signature(), Anatomy.of(template).signature()
    if found != expected:
        raise ValueError(f"{path} holds {found}, an index of kind '{kind.name}' is {expected}")
    if not whole.ntotal == inner.inner.ntotal == whole.id_map.size():
        raise ValueError(f"{path} has {inner.inner.ntotal} vectors under {whole.id_map.size()} ids")
    if whole.ntotal:
        # Looked at here and there, so that opening takes the same time at any size.
        places = np.unique(np.linspace(0, whole.ntotal - 1, num=min(whole.ntotal, _IDS_CHECKED), dtype=np.int64))
        ids = faiss.rev_swig_ptr(whole.id_map.data(), whole.ntotal)[places]
        if ids[0] < 0 or not np.all(ids[1:] - ids[:-1] >= places[1:] - places[:-1]):
            raise ValueError(f"{path} has ids that do not rise from 0 on")
    return whole


def _reason(error: RuntimeError) -> str:
    """Return FAISS's message without the C++ signature in front and the errno behind, which is of another call."""
    return re.sub(r"^Error in .* at \S+:\d+: (Error: )?|\s*\([^()]*\)$", "", str(error).strip(), flags=re.DOTALL)
