"""One `Collection` in many threads: they search while one writes, and end as one when it is closed."""

import contextlib
import gc
import os
import re
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assets import ASSETS
from trivium.encoders.sandbox.pool import DecodeSandbox
from trivium.indexes import Wish
from trivium.pipeline.collection import Collection
from trivium.pipeline.search import vectors
from trivium.pipeline.search.query import QueryPart, query_vectors
from trivium.pipeline.search.retrieval import Retrieval
from trivium.pipeline.space.joint import JointSpace, load_space
from trivium.pipeline.store import connections
from trivium.pipeline.store.database import CollectionError, CollectionLockedError, Connection, open_database
from trivium.pipeline.store.database_file import DATABASE
from trivium.pipeline.upkeep.verification import verify

THREADS = 16
CLOSED = r"is closed: open the collection again"
K = 10
SLEEPS = (
    "import socket, struct, time; link = socket.socket(fileno=0); ready = b'{\"ready\": true}'; "
    "link.sendall(struct.pack('<I', len(ready)) + ready); time.sleep(60)"
)


def in_threads(work: Callable[[int], Any], *, count: int = THREADS) -> list[Any]:
    """Do it in threads that begin together; what one raises is raised."""
    together = threading.Barrier(count)

    def begin(number: int) -> Any:
        together.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(begin, number) for number in range(count)]]


def write_notes(folder: Path, numbers: range) -> None:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        (folder / f"{number:05}.md").write_text(f"note {number}")


@contextmanager
def counted_connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Connection]]:
    """Collect what is opened for threads."""
    opened: list[Connection] = []

    def noted(*arguments: Any, **options: Any) -> Connection:
        opened.append(open_database(*arguments, **options))
        return opened[-1]

    with monkeypatch.context() as patched:
        patched.setattr(connections, "open_database", noted)
        yield opened


def is_open(connection: Connection) -> bool:
    return connection.file is not None


def open_files(folder: Path) -> int:
    """How often this process has the collection's database open."""
    held = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    return held.count(str(folder / DATABASE))


def test_threads_search_as_one_does(collection: Collection, media: Path) -> None:
    hits = collection.search(text="x", k=K)
    told = {
        "search": hits,
        "picture": collection.search(image=media / "red.png", k=K),
        "sound": collection.search(audio=media / "low.wav", k=K, only="audio"),
        "many": collection.search_many(text=["x", "Roses"], k=3, where="caption contains red"),
        "vectors": collection.search_vectors(np.ones((2, 16), np.float32), k=K, paths=["deep/*"]),
        "info": collection.info(),
        "keys": collection.metadata_keys(),
        "length": len(collection),
    }

    def ask(_: int) -> dict[str, Any]:
        return {
            "search": collection.search(text="x", k=K),
            "picture": collection.search(image=media / "red.png", k=K),
            "sound": collection.search(audio=media / "low.wav", k=K, only="audio"),
            "many": collection.search_many(text=["x", "Roses"], k=3, where="caption contains red"),
            "vectors": collection.search_vectors(np.ones((2, 16), np.float32), k=K, paths=["deep/*"]),
            "info": collection.info(),
            "keys": collection.metadata_keys(),
            "length": len(collection),
        }

    for answers in in_threads(ask):
        assert answers == told
    in_threads(lambda _: collection.explain(hits[0], text="x"))


@pytest.mark.parametrize("index", [None, Wish(kind="ivf-flat", recall=0.5)])
def test_searches_are_whole_while_one_adds_removes_and_compacts(
    tmp_path: Path, space: JointSpace, index: Wish | None
) -> None:
    media = tmp_path / "m"
    write_notes(media, range(300))
    collection = Collection.open(tmp_path / "c", space=space)
    collection.add(media, index=index)
    is_over = threading.Event()

    def search(number: int) -> int:
        rounds = 0
        while not is_over.is_set() or not rounds:
            few = collection.search(text=f"query {number}", k=K)
            filtered = collection.search(text=f"query {number}", k=K, paths=["*1.md"])
            assert len(few) == len({hit.path for hit in few}) == len(filtered) == K
            assert all(hit.path.endswith("1.md") for hit in filtered)
            assert [hit.score for hit in few] == sorted((hit.score for hit in few), reverse=True)
            (many,) = collection.search_many(text=[f"query {number}"], k=1000)
            assert all(hit.caption == f"note {int(Path(hit.path).stem)}" for hit in many)
            # One state of the collection: between two commits it has as many as before a removal, or after it.
            assert 280 <= len(many) <= 390
            rounds += 1
        return rounds

    with ThreadPoolExecutor(THREADS) as pool:
        searches = [pool.submit(search, number) for number in range(THREADS)]
        try:
            for step in range(2):
                write_notes(media, range(300 + 50 * step, 350 + 50 * step))
                assert collection.add(media).added == 50
                assert (
                    collection.remove([media / f"{number:05}.md" for number in range(10 * step, 10 * step + 10)]) == 10
                )
                for number in range(10 * step, 10 * step + 10):
                    (media / f"{number:05}.md").unlink()
                collection.compact()
        finally:
            is_over.set()
        assert all(future.result() for future in searches)
    assert len(collection) == 380
    assert len(collection.search(text="x", k=1000)) == 380


def test_a_search_sees_one_generation(collection: Collection, media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit waits for the search that is under way, and the next one sees it."""
    begun, go_on = threading.Event(), threading.Event()
    real = vectors.VectorSearch.search

    def slow(self: Any, *arguments: Any, **options: Any) -> Any:
        begun.set()
        assert go_on.wait(10)
        return real(self, *arguments, **options)

    monkeypatch.setattr(vectors.VectorSearch, "search", slow)
    before = len(collection)
    with ThreadPoolExecutor(2) as pool:
        search = pool.submit(collection.search, text="x", k=100)
        assert begun.wait(10)
        write_notes(media, range(3))
        adding = pool.submit(collection.add, media)
        time.sleep(0.3)
        assert not adding.done()
        go_on.set()
        assert len(search.result()) == before
        assert adding.result().added == 3
    assert len(collection.search(text="x", k=100)) == before + 3


def test_what_threads_share_is_made_once(
    tmp_path: Path, media: Path, space: JointSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Collection.open(tmp_path / "c", space=space) as collection:
        collection.add(media, index=Wish(kind="flat"))
    made: list[str] = []

    def noted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def make(*arguments: Any, **options: Any) -> Any:
            made.append(name)
            time.sleep(0.05)
            return real(*arguments, **options)

        return make

    monkeypatch.setattr("trivium.pipeline.collection.load_space", noted("space", lambda *_, **__: space))
    monkeypatch.setattr("trivium.pipeline.collection.Retrieval", noted("retrieval", Retrieval))
    monkeypatch.setattr("trivium.encoders.sandbox.pool.DecodeSandbox", noted("sandbox", DecodeSandbox))
    monkeypatch.setattr(vectors, "usable_index", noted("index", vectors.usable_index))
    with Collection.open(tmp_path / "c") as collection:
        answers = in_threads(lambda _: collection.search(image=media / "red.png", k=3))
    assert all(hits == answers[0] for hits in answers)
    assert sorted(made) == ["index", "index", "index", "retrieval", "sandbox", "space"]  # an index for each modality


def test_a_new_collection_is_made_once(tmp_path: Path, space: JointSpace) -> None:
    write_notes(tmp_path / "m", range(5))

    def add(_: int) -> int:
        try:
            return collection.add(tmp_path / "m").added
        except CollectionLockedError:
            return 0

    with Collection.open(tmp_path / "c", space=space) as collection:
        assert sum(in_threads(add, count=4)) == 5
        assert len(collection) == 5


def test_of_two_that_write_one_is_refused(collection: Collection, media: Path) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        inside.set()
        assert go_on.wait(10)

    write_notes(media, range(3))
    with ThreadPoolExecutor(1) as pool:
        adding = pool.submit(collection.add, media, progress=wait)
        assert inside.wait(10)
        for write in (lambda: collection.add(media), lambda: collection.remove([media]), collection.compact):
            with pytest.raises(CollectionLockedError, match=r"is being written by this process \(pid \d+\); try again"):
                write()
        assert len(collection.search(text="x", k=100)) >= 7  # who reads is not
        go_on.set()
        assert adding.result().added == 3
    assert collection.remove([media]) == 10


def test_a_connection_goes_with_its_thread(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    collection.search(text="x", k=1)
    before = open_files(collection.folder)
    with counted_connections(monkeypatch) as opened:
        collection.search(text="x", k=1)
        assert not opened  # this thread has its own
        in_threads(lambda _: [collection.search(text="x", k=1) for _ in range(3)])
        assert len(opened) == THREADS
        remembered = [weakref.ref(connection) for connection in opened]
        opened.clear()
        gc.collect()
        assert all(reference() is None for reference in remembered)
    assert open_files(collection.folder) == before


def test_close_closes_what_all_threads_have(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    stay, searched = threading.Event(), threading.Barrier(3)

    def search() -> None:
        collection.search(text="x", k=1)
        searched.wait(10)
        assert stay.wait(10)
        with pytest.raises(CollectionError, match=CLOSED):
            collection.search(text="x", k=1)

    with counted_connections(monkeypatch) as opened, ThreadPoolExecutor(2) as pool:
        searches = [pool.submit(search) for _ in range(2)]
        searched.wait(10)
        collection.close()
        assert [is_open(connection) for connection in opened] == [False, False]
        assert not open_files(collection.folder)
        stay.set()
        for future in searches:
            future.result()


def test_closed_is_told_by_every_method(collection: Collection, media: Path, tmp_path: Path) -> None:
    hit = collection.search(text="x", k=1)[0]
    collection.close()
    collection.close()
    calls: dict[str, Callable[[], object]] = {
        "add": lambda: collection.add(media),
        "search": lambda: collection.search(text="x"),
        "search_many": lambda: collection.search_many(text=["x"]),
        "search_vectors": lambda: collection.search_vectors(np.ones((1, 16), np.float32)),
        "search_parts": lambda: collection.search_parts([]),
        "explain": lambda: collection.explain(hit, text="x"),
        "explain_parts": lambda: collection.explain_parts([], [hit]),
        "remove": lambda: collection.remove([media]),
        "forget": lambda: collection.forget(media),
        "watch": lambda: collection.watch(print),
        "info": collection.info,
        "duplicates": collection.duplicates,
        "unseen_pictures": collection.unseen_pictures,
        "thumbnails": lambda: collection.thumbnails({}),
        "small_pictures": lambda: collection.small_pictures([]),
        "rebuild": collection.rebuild,
        "metadata_keys": collection.metadata_keys,
        "import_vectors": lambda: collection.import_vectors(media),
        "compact": collection.compact,
        "export": lambda: collection.export(tmp_path / "x.npy"),
        "backup": lambda: collection.backup(tmp_path / "b"),
        "migrate": lambda: collection.migrate("trivium-base"),
        "__len__": lambda: len(collection),
    }
    untold = {"open", "close", "space"}
    assert {name for name in vars(Collection) if not name.startswith("_")} - untold == calls.keys() - {"__len__"}
    for call in calls.values():
        with pytest.raises(CollectionError, match=CLOSED):
            call()
    assert repr(collection) == f"<Collection {str(collection.folder)!r}: closed>"


def test_closed_while_threads_search_and_add(tmp_path: Path, space: JointSpace) -> None:
    media = tmp_path / "m"
    write_notes(media, range(600))
    with Collection.open(tmp_path / "c", space=space) as first:
        first.add(media)
    for wait_seconds in (0.0, 0.01, 0.1, 0.2):
        collection = Collection.open(tmp_path / "c", space=space)
        write_notes(media, range(600, 602 + int(1000 * wait_seconds)))
        begun = threading.Barrier(THREADS + 1)

        def work(number: int, collection: Collection = collection, begun: threading.Barrier = begun) -> str:
            begun.wait()
            try:
                while True:
                    if number:
                        assert len(collection.search(text=f"query {number}", k=K)) == K
                    else:
                        collection.add(media)
            except CollectionError as error:
                return str(error)

        with ThreadPoolExecutor(THREADS) as pool:
            threads = [pool.submit(work, number) for number in range(THREADS)]
            begun.wait()
            time.sleep(wait_seconds)
            collection.close()
            assert not open_files(collection.folder)
            assert all(re.search(CLOSED, future.result()) for future in threads)
    assert verify(tmp_path / "c", read_data=True).is_sound


def test_close_ends_what_waits_for_a_decoder(collection: Collection, media: Path) -> None:
    asleep = [sys.executable, "-I", "-S", "-c", SLEEPS]
    collection._sandbox = DecodeSandbox(command=asleep)
    with ThreadPoolExecutor(1) as pool:
        search = pool.submit(collection.search, image=media / "red.png")
        while not collection._sandbox.pids:
            time.sleep(0.01)
        started = time.monotonic()
        collection.close()
        assert time.monotonic() - started < 5
        with pytest.raises(CollectionError, match=CLOSED):
            search.result()


def test_close_ends_a_watch(collection: Collection, media: Path) -> None:
    updated = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        watch = pool.submit(collection.watch, lambda _: updated.set(), poll=True)
        write_notes(media, range(1))
        assert updated.wait(30)
        collection.close()
        with contextlib.suppress(CollectionError):
            watch.result(10)
    assert not open_files(collection.folder)


def test_a_thread_may_close_what_it_is_in_the_middle_of(collection: Collection, media: Path) -> None:
    """From a callback, or a signal: it does not wait for itself, and is told."""
    write_notes(media, range(600))
    with pytest.raises(CollectionError, match=CLOSED):
        collection.add(media, progress=lambda *_: collection.close())
    assert not open_files(collection.folder)
    with Collection.open(collection.folder, space=collection.space) as again:
        kept = len(again)
        assert kept >= 256  # the batch that was told of
        assert again.add(media).added == 607 - kept


def test_a_thread_does_not_open_another_collection_in_its_place(collection: Collection, tmp_path: Path) -> None:
    collection.search(text="x", k=1)
    with Collection.open(tmp_path / "other", space=collection.space) as other:
        other.add([tmp_path / "media" / "red.png"])
    folder = collection.folder
    folder.rename(tmp_path / "before")
    (tmp_path / "other").rename(folder)
    with ThreadPoolExecutor(1) as pool, pytest.raises(CollectionError, match="no longer the collection"):
        pool.submit(collection.search, text="x", k=1).result()


@pytest.mark.weights
@pytest.mark.parametrize("device", ["cpu", "cpu-torch"])
def test_networks_are_right_in_many_threads(weights: object, device: str) -> None:
    """The real ones: tokenizers, decoders, sessions of ONNX Runtime, modules of torch; loaded once for all."""
    space = load_space("trivium-base", device=device)
    texts = ["a penguin", "ein Zug, der abf\u00e4hrt", "word " * 300]
    queries = [
        *([QueryPart(modality="text", item=text)] for text in texts),
        *([QueryPart(modality="image", item=ASSETS / name)] for name in ("airliner.png",)),
        *([QueryPart(modality="audio", item=ASSETS / name)] for name in ("beep.wav",)),
    ]

    def encode(sandbox: DecodeSandbox, number: int) -> np.ndarray:
        order = np.random.default_rng(number).permutation(len(queries))
        found = np.empty((len(queries), space.space.dim), np.float32)
        for place in order:
            found[place] = query_vectors(space, [queries[place]], sandbox=sandbox)[0]
        return found

    with DecodeSandbox() as sandbox:
        of_threads = in_threads(lambda number: encode(sandbox, number), count=8)
        encoders = {id(space.encoder(modality)) for modality in space.modalities}
        alone = encode(sandbox, 0)
    assert len(encoders) == 3
    for found in of_threads:
        np.testing.assert_allclose(found, alone, atol=1e-6)
