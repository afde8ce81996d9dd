"""Hostile inputs of every format that we read, by the thousand: a documented error or an answer, and nothing else.

Nothing else is: another error, a crash, a hang, a file outside that is touched, a raw control character in the output.
Case N of a seed is always the same: `python tests/fuzzing/listener.py MODULE TARGET SEED 1 N` runs it by itself.
"""

import os
from typing import Any

import pytest

SEED = os.environ.get("TRIVIUM_SEED", "0")
TIMES = float(os.environ.get("TRIVIUM_FUZZ", "1"))  # as many cases as the slow run makes
MANY = 1_000  # cases, after which what is known should have been seen
MEMORY_MIB = 2048  # at most, of everything that a run of cases loads and makes

# (module, target, cases in each run, cases in the slow one)
FORMATS = [
    ("hostile_databases", "databases", 60, 10_000),
    ("hostile_spaces", "spaces", 60, 10_000),
    ("hostile_spaces", "checkpoints", 60, 3_000),
    ("hostile_models", "models", 40, 10_000),
    ("hostile_indexes", "indexes", 40, 3_000),
    ("hostile_tables", "tables", 60, 10_000),
    ("hostile_tables", "vectors", 60, 10_000),
    ("hostile_tables", "sidecars", 200, 30_000),
    ("hostile_media", "headers", 200, 30_000),
    ("hostile_writing", "filters", 200, 100_000),
    ("hostile_writing", "lines", 200, 30_000),
]
# By target: why its cases may leak, and what is known of it.
KNOWN: dict[str, tuple[str, list[str]]] = {
    "indexes": (
        "FAISS trusts its files: it is given only those that this machine has made",
        [
            "AssertionError at indexes/faiss_index.py:_search",
            "IndexError at indexes/faiss_index.py:_hits",
            "MemoryError at indexes/faiss_file.py:read_faiss",
            "RuntimeError at indexes/faiss_index.py:_search",
            "search: hung",
            "search: killed by SIGSEGV",
        ],
    ),
    "models": (
        "weights that are huge, but numbers: NumPy warns where they overflow",
        [
            "RuntimeWarning at fusion/blocks.py:__call__",
            "RuntimeWarning at fusion/kernels/base_learners.py:__call__",
            "RuntimeWarning at fusion/kernels/base_learners.py:gaussian",
            "RuntimeWarning at fusion/networks/fitting.py:_standardised",
            "RuntimeWarning at pipeline/text_learning/classifying.py:probabilities",
        ],
    ),
    "spaces": (
        "a projection that is called by itself, not by an encoder, which says SpaceError",
        [
            "RuntimeWarning at fusion/projections/head.py:plain",
            "RuntimeWarning at fusion/projections/head.py:plain_of_standard",
            "RuntimeWarning at fusion/projections/plain.py:__call__",
            "ValueError at fusion/projections/head.py:joined",
        ],
    ),
    "vectors": (
        "pyarrow allocates what a damaged file says: 2 GiB, half a minute",
        [
            "import v.parquet: hung",
        ],
    ),
}


def check(heard: Any, target: str) -> None:
    _, known = KNOWN.get(target, ("", []))
    leaks = [str(leak) for signature, leak in sorted(heard.leaks.items()) if signature not in known]
    assert not leaks, "\n".join(leaks)
    assert heard.memory_mib < MEMORY_MIB
    print(f"\n{target}: {heard}")
    if heard.cases >= MANY and (gone := sorted(set(known) - heard.leaks.keys())):
        print(f"known, and not seen: {'; '.join(gone)}")


@pytest.mark.parametrize(("module", "target", "count"), [entry[:3] for entry in FORMATS])
def test_some_hostile_inputs(module: str, target: str, count: int, listener: Any) -> None:
    check(listener.listen(module, target, seed=SEED, count=count), target)


@pytest.mark.slow
@pytest.mark.parametrize(("module", "target", "count"), [(*entry[:2], entry[3]) for entry in FORMATS])
def test_hostile_inputs(module: str, target: str, count: int, listener: Any) -> None:
    check(listener.listen(module, target, seed=SEED, count=int(count * TIMES)), target)


def test_what_no_case_may_do_is_noticed(listener: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIVIUM_LIMIT", "1")
    heard = listener.listen("hostile_nothings", "nothings", seed=SEED, count=9)
    assert sorted(heard.leaks) == [
        "PanicException at outside of trivium",
        "ValueError at outside of trivium",
        "end: killed by SIGSEGV",
        "hang: hung",
        "touched outside: mine",
    ]
    assert heard.leaks["touched outside: mine"].times == 2
    assert heard.leaks["end: killed by SIGSEGV"].number == 4
    assert heard.cases == 9
    assert heard.by_error == {"LookupError": 1}
