"""Run a model on arrays, numpy in and numpy out, on any server that speaks the Open Inference Protocol (V2).

    python predict.py SERVICE ARRAY.npy              the model's sole input
    python predict.py SERVICE a=A.npy b=B.npy        inputs by name

Where the service is comes from TWOSTEP_REGISTRY, Consul's own variables, or the Consul agent on this machine. The
servers may be nodes of Twostep, Triton, KServe, MLServer or others, as long as Consul knows them under that name.
"""

import sys

import numpy as np

from smartclient import ClientError, SmartClient


def main(service: str, *files: str) -> None:
    """Send the arrays in one request and show what comes back."""
    arrays = {name: np.load(path) for name, _, path in (file.rpartition("=") for file in files)}
    with SmartClient(service) as client:
        result = client.predict(arrays.get("", arrays), timeout=10.0)
    print(f"{result.model} on {result.node} in {result.milliseconds:.1f} ms")
    for name, array in result.outputs.items():
        print(f"{name}: {array.dtype}{list(array.shape)}\n{array}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: predict.py SERVICE ARRAY.npy | NAME=ARRAY.npy ...")
    try:
        main(*sys.argv[1:])
    except (ClientError, OSError, ValueError) as error:
        sys.exit(f"predict.py: {error}")
