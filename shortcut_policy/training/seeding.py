"""Random numbers as a pure function of (seed, purpose, position), so that a resumed run needs no RNG state."""

import hashlib


def derive_seed(seed: int, *path: str | int) -> int:
    """A 63-bit seed for one purpose, such as derive_seed(0, "draw", step); distinct paths are independent."""
    digest = hashlib.blake2b(repr((seed, *path)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
