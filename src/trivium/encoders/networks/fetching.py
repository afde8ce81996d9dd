"""Whether anything may be fetched just now: not offline, and only for a name that the user gave on this machine.

A collection, a space or a model that came from elsewhere may name a source on the network. It is used if it is in the
cache already; else the user is asked to name it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_source: ContextVar[str | None] = ContextVar("source that nobody here has named", default=None)


@contextmanager
def fetching_for(source: str, *, is_named: bool) -> Iterator[None]:
    """Say on whose behalf files are looked for; what the user has not named is not fetched meanwhile."""
    token = _source.set(None if is_named else source)
    try:
        yield
    finally:
        _source.reset(token)


def forbidden_by() -> str | None:
    """Return what forbids to fetch "them", as the end of a sentence; None if nothing does."""
    if os.environ.get("TRIVIUM_OFFLINE"):
        return "TRIVIUM_OFFLINE forbids fetching them"
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE forbids fetching them"
    source = _source.get()
    if source is None:
        return None
    return (
        f"nothing is fetched because a collection, space or model from elsewhere names it: if you want '{source}', "
        f"run `trivium pull {source}` first"
    )
