"""Damaged copies of a file, seeded: what decoders must survive."""

import random
from collections.abc import Callable, Iterator

# What readers of sizes, counts and offsets stumble over, as signed and as unsigned numbers.
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def mutants(data: bytes, seed: int, count: int = 60) -> list[bytes]:
    """Copies of a file, each damaged in one of six ways in turn; the header is hit more often."""
    return list(each_mutant(data, seed, count))


def each_mutant(data: bytes, seed: int, count: int) -> Iterator[bytes]:
    """The same one by one, for large counts."""
    chance = random.Random(seed)
    for number in range(count):
        mutant = bytearray(data)
        # Every other round of six stays within the header.
        reach = min(100, len(data)) if number // len(OPERATORS) % 2 == 0 else len(data)
        OPERATORS[number % len(OPERATORS)](mutant, reach, chance)
        yield bytes(mutant)


def flip_bits(mutant: bytearray, reach: int, chance: random.Random) -> None:
    for _ in range(chance.randrange(1, 9)):
        mutant[chance.randrange(reach)] ^= 1 << chance.randrange(8)


def truncate(mutant: bytearray, reach: int, chance: random.Random) -> None:
    del mutant[chance.randrange(reach) :]


def put_extreme(mutant: bytearray, reach: int, chance: random.Random) -> None:
    """Overwrite a 32-bit field of either byte order, wherever it may lie."""
    first = chance.randrange(reach)
    field = chance.choice(EXTREMES).to_bytes(4, chance.choice(("little", "big")))
    mutant[first : first + 4] = field[: len(mutant) - first]


def cut_out(mutant: bytearray, reach: int, chance: random.Random) -> None:
    first, last = _run(mutant, reach, chance)
    del mutant[first:last]


def repeat(mutant: bytearray, reach: int, chance: random.Random) -> None:
    first, last = _run(mutant, reach, chance)
    mutant[first:first] = mutant[first:last] * chance.randrange(1, 4)


def put_noise(mutant: bytearray, reach: int, chance: random.Random) -> None:
    first, last = _run(mutant, reach, chance)
    mutant[first:last] = chance.randbytes(last - first)


OPERATORS: tuple[Callable[[bytearray, int, random.Random], None], ...] = (
    *(flip_bits, truncate, put_extreme, cut_out, repeat, put_noise),
)


def _run(mutant: bytearray, reach: int, chance: random.Random) -> tuple[int, int]:
    first = chance.randrange(reach)
    return first, min(len(mutant), first + chance.randrange(1, 64))
