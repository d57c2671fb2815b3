"""mosec as its documentation would have it: a stage that decodes, a stage that runs the model in batches of up to 32.

``python -m infra.bench.rivals.mosec_app --port PORT …`` (its own options), in an environment that has mosec. The body
is the image as it is; a process for each core decodes. Other ways were as fast or slower here: decoding in threads
beside the model, one decoder, three, and waiting 1, 3 or 30 ms for a batch to fill.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mosec import Server, Worker  # type: ignore[import-not-found] # in its own environment

from infra.bench.rivals.frozen import Pixels, answer, cores, decode, load


class Decode(Worker):  # type: ignore[misc] # untyped here
    """The first stage."""

    def deserialize(self, data: bytes) -> bytes:
        """The body is the image."""
        return data

    def forward(self, data: bytes) -> Pixels:
        """Decode one image."""
        return decode(data)


class Classify(Worker):  # type: ignore[misc] # as above
    """The second stage."""

    def __init__(self) -> None:
        super().__init__()
        self._run = load()

    def forward(self, data: Sequence[Pixels]) -> list[dict[str, Any]]:
        """Run the model once for a batch."""
        return [answer(scores) for scores in self._run(np.stack(data))]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Decode, num=cores(), route="/classify", timeout=30)
    server.append_worker(Classify, max_batch_size=32, max_wait_time=10, route="/classify", timeout=30)
    server.run()
