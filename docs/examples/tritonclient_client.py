"""Run a model with NVIDIA's own client (tritonclient), each request on the node that is best.

    python tritonclient_client.py SERVICE MODEL ARRAY.npy...

The client makes an aiohttp session for itself and takes none, so ``through`` exchanges it for one like it. Where the
service is comes from TWOSTEP_REGISTRY, Consul's own variables, or the Consul agent on this machine.
"""

import asyncio
import sys
from pathlib import Path

import aiohttp
import numpy as np
from tritonclient.http.aio import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from smartclient.adapters.aiohttp import SmartMiddleware


def through(smart: SmartMiddleware, client: InferenceServerClient) -> InferenceServerClient:
    """Have ``client`` ask through ``smart``, over the connections and with the timeout that it was made with."""
    session = client._stub  # noqa: SLF001 - the one thing of the client's that is not public
    client._stub = aiohttp.ClientSession(  # noqa: SLF001
        connector=session.connector,
        timeout=session.timeout,
        auto_decompress=session.auto_decompress,
        middlewares=(smart,),
    )
    session.detach()
    return client


async def main(service: str, model: str, *files: str) -> None:
    """Send each array to the model's only input and show its outputs."""
    async with (
        SmartMiddleware(idempotent=True) as smart,  # a model run twice does no harm
        through(smart, InferenceServerClient(f"{service}.service.consul", conn_timeout=10)) as client,
    ):
        if not await client.is_server_live() or not await client.is_model_ready(model):
            sys.exit(f"tritonclient_client.py: {model!r} is not ready at {service!r}")
        metadata = await client.get_model_metadata(model)
        name = metadata["inputs"][0]["name"]
        for path in map(Path, files):
            array = np.load(path)
            tensor = InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(array)
            result = await client.infer(model, [tensor])
            for output in result.get_response()["outputs"]:
                print(f"{path.name}\t{output['name']}\t{result.as_numpy(output['name']).tolist()}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: tritonclient_client.py SERVICE MODEL ARRAY.npy...")
    try:
        asyncio.run(main(*sys.argv[1:]))
    except (InferenceServerException, aiohttp.ClientError, OSError, ValueError) as error:
        sys.exit(f"tritonclient_client.py: {error}")
