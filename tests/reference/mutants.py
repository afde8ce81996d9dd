"""Damaged copies of a file, seeded: what decoders must survive."""

import random


def mutants(data: bytes, seed: int, count: int = 60) -> list[bytes]:
    """Copies of a file with flipped bits, a cut, a repeated or a wiped block; the header is hit more often."""
    made = []
    chance = random.Random(seed)
    for number in range(count):
        mutant = bytearray(data)
        reach = min(100, len(data)) if number % 3 == 0 else len(data)
        first = chance.randrange(reach)
        last = min(len(data), first + chance.randrange(1, 64))
        if number % 4 == 0:
            for _ in range(chance.randrange(1, 9)):
                mutant[chance.randrange(reach)] ^= 1 << chance.randrange(8)
        elif number % 4 == 1:
            del mutant[first:]
        elif number % 4 == 2:
            mutant[first:first] = mutant[first:last] * chance.randrange(1, 4)
        else:
            mutant[first:last] = bytes([chance.randrange(256)]) * (last - first)
        made.append(bytes(mutant))
    return made
