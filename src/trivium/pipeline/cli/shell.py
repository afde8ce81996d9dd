"""`trivium shell`: queries at a prompt, or line by line from a pipe, answered by models that are loaded once."""

import argparse
import contextlib
import io
import json
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from trivium.encoders.base import SandboxError, WeightsError
from trivium.pipeline.cli import ends
from trivium.pipeline.cli.ends import Command
from trivium.pipeline.cli.options import (
    UsageError,
    add_device,
    add_filter,
    add_json,
    add_min_relevance,
    filter_of,
    open_collection,
    plain_of,
    positive,
)
from trivium.pipeline.cli.query_words import parse_line, split_words
from trivium.pipeline.cli.searching import answer
from trivium.pipeline.cli.terminal import announce, counted, message_of, say
from trivium.pipeline.collection import Collection
from trivium.pipeline.search.query import QueryError
from trivium.pipeline.space.config import SpaceError
from trivium.pipeline.store.database import CollectionError
from trivium.pipeline.store.filters import FilterError

PROMPT = "trivium> "
HISTORY_LINES = 1000
HELP = """\
a bird singing                     words make one text
2:beach "at night" -crowd          three texts: a weight or a quote begins another, '-' means less of it
image:~/blue.jpg audio:"a b.ogg"   by pictures, sounds, video:FILEs; weights too: -image:dull.jpg, 0.5:audio:rain.ogg
a bird --only audio -k 3           for this line; --path, --where, --html, --json and --explain as in `trivium search`

:only [image|audio|text|video]     for all lines that follow; without a word: no longer
:path [PATTERN ...]                '*.jpg', a folder, ...
:where [EXPRESSION]                year >= 2020 and caption contains dog
:k [N]                             how many hits, 10
:info                              what the collection holds
:help                              this, and what holds now
:quit                              or Ctrl-D; Ctrl-C gives up a line"""
# What may be wrong with a line, or with the collection while it is answered; the next line may fare better.
EXPECTED = (
    *(QueryError, FilterError, UsageError, CollectionError, SandboxError, SpaceError, WeightsError),
    *(sqlite3.Error, OSError, MemoryError),
)


def shell_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium shell`."""
    parser.description = "A line is a query; ':help' tells how to write one. Options hold until a line changes them."
    parser.add_argument("collection", metavar="COLLECTION", help="the collection's folder")
    add_filter(parser)
    add_min_relevance(parser)
    parser.add_argument("-k", type=positive, default=10, help="how many hits (default 10)")
    add_json(parser, help="print one JSON object for each query and nothing else")
    parser.add_argument("--space", help="refuse the collection if it was made with another space")
    add_device(parser)


def shell(options: argparse.Namespace) -> int:
    """Answer queries until there are no more."""
    with open_collection(options, space=options.space) as collection:
        filter_of(options)  # refused now rather than at each line
        is_interactive = sys.stdin.isatty() and sys.stdout.isatty()
        held = Shell(collection, options)
        if is_interactive:
            ends.spare_lines()
            held.greet()
            with _history():
                held.run(_typed(), ends_on_interrupt=False)
        else:
            held.run(_piped(), ends_on_interrupt=True)
    return 0


@dataclass(slots=True)
class _Settings:
    """What holds for all lines that do not say otherwise."""

    only: str | None
    path: list[str]
    where: list[str]
    k: int
    json: bool
    min_relevance: float | None


class Shell:
    """Answers lines about one collection; nothing that a line holds ends it but ``:quit``."""

    def __init__(self, collection: Collection, options: argparse.Namespace) -> None:
        """Begin with the options of the command line: only, path, where, k, json and min_relevance.

        Raises:
            CollectionError: If there is no collection, or it is damaged.
            SpaceError: If there is no such space.
        """
        self._collection = collection
        self._told = counted(collection.info().items)
        self._space = collection.space
        self._settings = _Settings(
            options.only, options.path, options.where, options.k, options.json, options.min_relevance
        )
        self._commands: Mapping[str, Callable[[str], None]] = {
            "only": self._set_only,
            "path": self._set_path,
            "where": self._set_where,
            "k": self._set_k,
            "info": self._info,
            "help": self._help,
        }

    def greet(self) -> None:
        """Tell what there is, and load what texts need: the first answer is as quick as the others."""
        say(f"{self._told} items, space {self._space.space.name}. :help tells what to type, Ctrl-D ends.")
        # Not in another thread while the user types: native libraries abort if the program ends meanwhile.
        if "text" in self._space.modalities:
            with contextlib.suppress(*EXPECTED):  # told to who needs it
                self._space.encoder("text")

    def run(self, lines: Iterator[str], *, ends_on_interrupt: bool) -> None:
        """Answer lines until there are no more, or one says ``:quit``."""
        while True:
            line: str | None = None
            try:
                line = next(lines, None)
                if line is None or line.strip() in (":quit", ":q"):
                    return
                if line.strip():
                    self.answer(line.strip())
                sys.stdout.flush()  # whoever reads waits for this answer
            except BrokenPipeError:
                raise  # nobody reads any more
            except EXPECTED as error:
                self._tell(error, line)
            except KeyboardInterrupt as error:
                if ends_on_interrupt or ends.is_end(error):
                    raise
                ends.answered()
                say()
            except Exception as error:
                if line is None:
                    raise  # there is no next line
                self._tell(ends.told(error), line)

    def answer(self, line: str) -> None:
        """Do what a line asks for.

        Raises:
            UsageError: If it is neither a query nor a command.
            QueryError: If it cannot be answered; and whatever else a search may raise.
        """
        if line.startswith(":"):
            name, _, argument = line[1:].partition(" ")
            if name not in self._commands:
                known = ", ".join(f":{command}" for command in (*self._commands, "quit"))
                raise UsageError(f"no command ':{name}', known are {known}; a text that begins so takes quotes")
            self._commands[name](argument.strip())
            return
        settings, options = self._settings, parse_line(line)
        options.collection = str(self._collection.folder)
        options.only = options.only or settings.only
        options.path = options.path or settings.path
        options.where = options.where or settings.where
        options.k = options.k or settings.k
        options.json = options.json or (settings.json and not (options.csv or options.paths or options.paths0))
        if options.min_relevance is None:
            options.min_relevance = settings.min_relevance
        answer(self._collection, options)
        if plain_of(options) is None and not sys.stdout.isatty():
            say()  # where an answer ends

    def _tell(self, error: Exception | str, line: str | None) -> None:
        """Tell why a line has no answer, as an object where each line is to give one."""
        query = (line or "").strip()
        if self._settings.json and not query.startswith(":"):
            say(json.dumps({"query": query, "error": str(error) or type(error).__name__}), flush=True)
        else:
            announce(message_of(error) or type(error).__name__)

    def _set_only(self, argument: str) -> None:
        self._change(only=argument or None)

    def _set_path(self, argument: str) -> None:
        self._change(path=[word.text for word in split_words(argument)])

    def _set_where(self, argument: str) -> None:
        self._change(where=[argument] if argument else [])

    def _set_k(self, argument: str) -> None:
        try:
            self._settings.k = positive(argument or "10")
        except argparse.ArgumentTypeError as error:
            raise UsageError(f":k {error}") from None

    def _change(self, **changed: object) -> None:
        """Change settings, if a filter can be made of them."""
        settings = self._settings
        filter_of(
            argparse.Namespace(**{"only": settings.only, "path": settings.path, "where": settings.where, **changed})
        )
        for name, value in changed.items():
            setattr(settings, name, value)

    def _info(self, _: str) -> None:
        found = self._collection.info()
        say(f"{counted(found.items)} items, {found.vectors:,} vectors, generation {found.generation}")

    def _help(self, _: str) -> None:
        settings = self._settings
        now = f"now: :only {settings.only or ''} :path {' '.join(settings.path)}"
        say(*HELP.split("\n"), "", f"{now} :where {' and '.join(settings.where)} :k {settings.k}")


def _typed() -> Iterator[str]:
    """Yield lines as the user types them, until Ctrl-D."""
    return iter(_Prompt())


class _Prompt:
    """An iterator and no generator: Ctrl-C would end that."""

    def __iter__(self) -> "_Prompt":
        return self

    def __next__(self) -> str:
        try:
            return input(PROMPT)
        except EOFError:
            say()
            raise StopIteration from None


def _piped() -> Iterator[str]:
    """Yield lines as they come, whatever bytes they hold."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    return iter(sys.stdin.readline, "")


@contextlib.contextmanager
def _history() -> Iterator[None]:
    """Keep what was typed for the next time, where Python has readline; it also lets lines be edited."""
    try:
        import readline
    except ImportError:
        yield
        return
    file = Path(platformdirs.user_state_dir("trivium", appauthor=False)) / "shell_history"
    with contextlib.suppress(OSError):
        readline.read_history_file(file)
    readline.set_history_length(HISTORY_LINES)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600))  # queries are nobody else's business
            readline.write_history_file(file)


COMMANDS: Mapping[str, Command] = {"shell": Command(shell_options, shell)}
