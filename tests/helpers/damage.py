"""Random damage to the bytes of a file, the same for the same generator."""

import numpy as np


def damage(data: bytes, random: np.random.Generator) -> bytes:
    """Change, cut out, double or zero some bytes, or cut the end off: once or twice, anywhere or near the start."""
    damaged = bytearray(data)
    for _ in range(random.integers(1, 3)):
        size = max(len(damaged), 1)
        place = int(size * random.random() ** random.integers(1, 3))
        length = int(min(size - place, random.integers(1, 65)))
        match random.integers(6):
            case 0:
                damaged[place : place + 1] = random.bytes(1)
            case 1:
                damaged[place : place + length] = random.bytes(length)
            case 2:
                del damaged[place : place + length]
            case 3:
                damaged[place:place] = damaged[place : place + length]
            case 4:
                damaged[place : place + length] = bytes(length)
            case 5:
                del damaged[int(size * random.random()) :]
    return bytes(damaged)
