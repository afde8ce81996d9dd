"""Options that several commands share: how they are written, and what they mean."""

import argparse
import re
from typing import TYPE_CHECKING, Any

from trivium.encoders.base import MODALITIES
from trivium.encoders.sandbox.mode import MEGAPIXELS_VARIABLE, MODES, VARIABLE
from trivium.pipeline.records import ITEM_KINDS
from trivium.pipeline.store.filters import Filter

if TYPE_CHECKING:
    from trivium.indexes import Wish
    from trivium.pipeline.collection import Collection
    from trivium.pipeline.tables.pairs import Role

SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?) ?(?P<unit>[kMGT]i?)?B?", re.ASCII)
BYTES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
PRECISIONS = ("float32", "int8")
MAX_DIGITS = 18  # of a whole number: SQLite has 64 bits, and Python reads no more than 4,300


class UsageError(Exception):
    """Options that cannot be followed."""


def require_values(options: argparse.Namespace) -> None:
    """Refuse empty values, whatever they are for: an empty path would be the current folder.

    Parts of a query are read, and refused, elsewhere: what is left of them beside a weight may be empty too.

    Raises:
        UsageError: If there is one.
    """
    for name, value in vars(options).items():
        if name not in (*MODALITIES, "texts") and "" in (value if isinstance(value, list) else [value]):
            what = name.removesuffix("s").replace("_", "-")
            raise UsageError(
                f"an empty {what} is given: leave it out, or say what is meant ('.' is the current folder)"
            )


class Parser(argparse.ArgumentParser):
    """Refuses an option that takes one value and is given twice: argparse would take the last in silence."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.given: set[str] = set()
        for name in (None, "store"):
            self.register("action", name, _Once)

    def parse_known_args(self, args: Any = None, namespace: Any = None, **settings: Any) -> Any:
        """Do what argparse does; nothing has been given yet."""
        self.given = set()
        return super().parse_known_args(args, namespace, **settings)


class _Once(argparse.Action):
    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        if option is not None and self.dest in parser.given:
            parser.error(f"{'/'.join(self.option_strings)} is given twice, and takes one value")
        parser.given.add(self.dest)
        setattr(namespace, self.dest, values)


def add_json(parser: argparse.ArgumentParser, *, help: str = "print one JSON object") -> None:
    """Let the user have an answer for programs."""
    parser.add_argument("--json", action="store_true", help=help)


def add_plain(parser: argparse.ArgumentParser) -> None:
    """Let the user have hits for other programs than those that read JSON."""
    parser.add_argument("--csv", action="store_true", help="print the hits as CSV, with a line of names first")
    parser.add_argument("--paths", action="store_true", help="print the hits' paths alone, a line each, for programs")
    parser.add_argument(
        "--paths0", action="store_true", help="the same with a NUL after each, for `xargs -0`: names may have newlines"
    )


def plain_of(options: argparse.Namespace) -> str | None:
    """Return which form of hits was asked for: "json", "csv", "paths" or "paths0"; None for what people read.

    Raises:
        UsageError: If it is more than one.
    """
    asked = [form for form in ("json", "csv", "paths", "paths0") if getattr(options, form)]
    if len(asked) > 1:
        raise UsageError(f"{' and '.join(f'--{form}' for form in asked)} are forms of one answer: choose one")
    return asked[0] if asked else None


def add_device(parser: argparse.ArgumentParser) -> None:
    """Let the user say where the networks run, how exactly, and how safely files are decoded for them."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (all GPUs), cuda:N or mps (default: auto)")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="int8: transformers on a CPU twice as fast, vectors a little off (`trivium bench` tells how far)",
    )
    parser.add_argument(
        "--sandbox",
        choices=MODES,
        help="strict: decode no file where this system cannot isolate its decoder; auto: say so once (default: what "
        f"{VARIABLE} says, else auto)",
    )
    parser.add_argument(
        "--max-megapixels",
        type=float,
        metavar="N",
        help="the largest picture that is decoded, in memory and time that grow with it (default: what "
        f"{MEGAPIXELS_VARIABLE} says, else 100; JPEGs that can be scaled down: 4 times that)",
    )


def device_of(options: argparse.Namespace) -> str:
    """Return the device that the networks run on, checked.

    Raises:
        UsageError: If this machine has no such device.
    """
    from trivium.encoders.devices import DeviceError, resolve

    try:
        resolve(options.device)
    except DeviceError as error:
        raise UsageError(str(error)) from error
    return str(options.device)


def open_collection(options: argparse.Namespace, *, space: str | None) -> "Collection":
    """Open the collection of a command that encodes, on the device and with the precision that were asked for."""
    from trivium.pipeline.cli.terminal import announce
    from trivium.pipeline.collection import Collection

    return Collection.open(
        options.collection, space=space, device=device_of(options), precision=options.precision, announce=announce
    )


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Let the user draw otherwise."""
    parser.add_argument("--seed", type=natural, default=0, help="of all that is drawn at random (default 0)")


def add_wish(parser: argparse.ArgumentParser) -> None:
    """Let the user say what the index should be like."""
    group = parser.add_argument_group("index", "What to ask of the index from now on, all of it anew if any is given.")
    group.add_argument(
        "--index", metavar="KIND", help="auto (default), flat, hnsw, ivf-sq8, ...; a wrong one lists all"
    )
    group.add_argument("--recall", type=float, help="share of the 10 nearest that must be found (default 0.95)")
    group.add_argument("--memory", type=size_bytes, metavar="SIZE", help="the most the index may take, such as 2GB")
    group.add_argument("--latency", type=float, metavar="MS", help="milliseconds that a search of it may take")


def wish_of(options: argparse.Namespace) -> "Wish | None":
    """Return what is asked of the index; None if nothing was said.

    Raises:
        UsageError: If there is no such kind, or a number is out of range.
    """
    from trivium.indexes import Wish  # imports FAISS, which parsing need not wait for

    if options.index is options.recall is options.memory is options.latency is None:
        return None
    try:
        return Wish(
            kind=options.index or Wish().kind,
            recall=Wish().recall if options.recall is None else options.recall,
            memory_bytes=options.memory,
            latency_ms=options.latency,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def add_filter(parser: argparse.ArgumentParser) -> None:
    """Let the user restrict which items are meant."""
    parser.add_argument(
        "--only", choices=ITEM_KINDS, help="items of one kind (of several: --where 'modality in (image, video)')"
    )
    parser.add_argument(
        "--path",
        metavar="PATTERN",
        action="append",
        default=[],
        help="items that a pattern matches: 'holiday/*', '*.jpg', or a folder; several are alternatives",
    )
    parser.add_argument(
        "--where",
        metavar="EXPR",
        action="append",
        default=[],
        help="items by captions and metadata: 'year >= 2020 and caption contains dog'; several must all hold",
    )


def add_min_relevance(parser: argparse.ArgumentParser) -> None:
    """Let the user be told "nothing relevant"."""
    parser.add_argument(
        "--min-relevance",
        type=share,
        metavar="P",
        help="leave out what is relevant with a smaller probability, 0 to 1; perhaps nothing is left",
    )


def filter_of(options: argparse.Namespace) -> Filter:
    """Return which items are meant.

    Raises:
        FilterError: If a part cannot be understood.
    """
    return Filter(only=options.only, paths=tuple(options.path), where=tuple(options.where))


def add_table(parser: argparse.ArgumentParser) -> None:
    """Let the user say how a table of pairs is to be read."""
    parser.add_argument(
        "--column",
        metavar="ROLE=NAME",
        action="append",
        default=[],
        help="read text, image, audio, label or score from the column NAME (default: the role's own name, or caption, "
        "title, path); 'ROLE=' leaves it out",
    )
    parser.add_argument(
        "--where",
        metavar="COLUMN=VALUE",
        action="append",
        default=[],
        help="use only rows with this in that column; several must all hold",
    )


def columns_of(options: argparse.Namespace) -> "dict[Role, str]":
    """Return the columns that were named for roles.

    Raises:
        UsageError: If one is not written so, or is of no role.
    """
    from trivium.pipeline.tables.pairs import ROLES  # brings readers that parsing need not wait for

    named = _assignments("--column", "ROLE=NAME", options.column)
    if unknown := [role for role in named if role not in ROLES]:
        raise UsageError(f"--column {unknown[0]}=...: no such role, there are {', '.join(ROLES)}")
    return {role: named[role] for role in ROLES if role in named}


def where_of(options: argparse.Namespace) -> dict[str, str]:
    """Return what must stand in which column of a table.

    Raises:
        UsageError: If one is not written so.
    """
    return _assignments("--where", "COLUMN=VALUE", options.where)


def part(text: str) -> tuple[int, int]:
    """Read which part of how many is meant: ``1/7``."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    number, parts = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= parts:
        raise argparse.ArgumentTypeError(f"'{text}' is no part: write 1/7, 2/7, ... 7/7")
    return number, parts


def positive(written: str) -> int:
    """Read a whole number of at least 1.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    return natural(written, least=1)


def natural(written: str, *, least: int = 0) -> int:
    """Read a whole number of at least 0, or another.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    number = int(written) if written.isascii() and written.isdigit() and len(written) <= MAX_DIGITS else -1
    if number < least:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got '{written[:40]}'")
    return number


def seconds(written: str) -> float:
    """Read a time above 0.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    try:
        number = float(written)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got '{written}'")
    return number


def size_bytes(written: str) -> int:
    """Read a size: 500MB, 2 GB, 1.5GiB, or bytes.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    match = SIZE.fullmatch(written.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"'{written}' is no size: write 500MB, 2GB, 1.5GiB or a number of bytes")
    return int(float(match["number"]) * BYTES[match["unit"] or ""])


def _assignments(option: str, form: str, written: "list[str]") -> dict[str, str]:
    named: dict[str, str] = {}
    for entry in written:
        name, sign, value = (part.strip() for part in entry.partition("="))
        if not name or not sign:
            raise UsageError(f"{option} is written {form}, got '{entry}'")
        if name in named:
            raise UsageError(f"{option} {name}=... is given twice")
        named[name] = value
    return named


def numbers(written: str) -> list[float]:
    """Read numbers above 0 with commas between.

    Raises:
        argparse.ArgumentTypeError: If they are none.
    """
    try:
        found = [float(number) for number in written.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < number < float("inf") for number in found):
        raise argparse.ArgumentTypeError(f"must be numbers above 0 with commas between, got '{written}'")
    return found


def share(written: str) -> float:
    """Read a number from 0 to below 1.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    try:
        found = float(written)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to below 1, got '{written}'")
    return found


def above_zero(written: str) -> float:
    """Read a number above 0.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    found = numbers(written)
    if len(found) != 1:
        raise argparse.ArgumentTypeError(f"must be one number above 0, got '{written}'")
    return found[0]
