"""Random streams: one seed for each (run seed, client, round, purpose), so that nothing depends on who ran before."""

from __future__ import annotations

import hashlib


def seed_for(run_seed: int, partition_id: int, server_round: int, purpose: str) -> int:
    """Return a 63-bit seed.

    >>> seed_for(0, 3, 1, "batches") == seed_for(0, 3, 1, "batches") != seed_for(0, 3, 2, "batches")
    True
    """
    text = f"{run_seed}/{partition_id}/{server_round}/{purpose}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
