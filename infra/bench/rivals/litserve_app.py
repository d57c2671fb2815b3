"""LitServe as its documentation would have it: dynamic batches of up to 32, an upload as the body, one worker.

``python -m infra.bench.rivals.litserve_app PORT``, in an environment that has LitServe. Decoding a whole batch in
threads inside ``batch`` is our addition: without it images are decoded one after another and a core idles. Other ways
were as fast or slower here: two workers, batches of up to 16, its fast queue, base64 in JSON as the body, and waiting 2
or 50 ms for a batch to fill (0 would make the worker spin).
"""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import litserve  # type: ignore[import-not-found] # in its own environment
import numpy as np
from fastapi import UploadFile  # type: ignore[import-not-found] # comes with LitServe

from infra.bench.rivals.frozen import Pixels, Scores, answer, cores, decode, load


class Classify(litserve.LitAPI):  # type: ignore[misc] # untyped here
    """LitServe's hooks, in the order it calls them."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        """Load the model in the worker."""
        self._run = load()
        self._pool = ThreadPoolExecutor(cores())

    def decode_request(self, request: UploadFile) -> bytes:
        """Take the file out of the form."""
        return bytes(request.file.read())

    def batch(self, inputs: Sequence[bytes]) -> Pixels:
        """Decode them side by side."""
        return np.stack(list(self._pool.map(decode, inputs)))

    def predict(self, x: Pixels) -> Scores:
        """Run the model once for all."""
        return self._run(x)

    def unbatch(self, output: Scores) -> list[Scores]:
        """Take the batch apart."""
        return list(output)

    def encode_response(self, output: Scores) -> dict[str, Any]:
        """Answer one image."""
        return answer(output)


if __name__ == "__main__":
    api = Classify(max_batch_size=32, batch_timeout=0.01, api_path="/classify")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
