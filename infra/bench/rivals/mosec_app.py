"""mosec as its documentation would have it: raw bytes in, dynamic batches of up to 32, one worker for the model.

``python -m infra.bench.rivals.mosec_app --port PORT …`` (its own options), in an environment that has mosec. The batch
is decoded in threads beside the model: a stage of its own for decoding was slower here, for pixels then have to go from
process to process.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from mosec import Server, Worker  # type: ignore[import-not-found] # in its own environment

from infra.bench.rivals.frozen import answer, cores, decode, load


class Classify(Worker):  # type: ignore[misc] # untyped here
    """The only stage."""

    def __init__(self) -> None:
        super().__init__()
        self._run = load()
        self._pool = ThreadPoolExecutor(cores())

    def deserialize(self, data: bytes) -> bytes:
        """The body is the image."""
        return data

    def forward(self, data: Sequence[bytes]) -> list[dict[str, Any]]:
        """Decode a batch side by side, and run the model once."""
        return [answer(scores) for scores in self._run(np.stack(list(self._pool.map(decode, data))))]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Classify, max_batch_size=32, max_wait_time=10, route="/classify", timeout=30)
    server.run()
