"""Classify images with httpx, written as for any web server; one line sends each request to the node that is best.

    python httpx_client.py SERVICE IMAGE...

Where the service is comes from TWOSTEP_REGISTRY, Consul's own variables, or the Consul agent on this machine.
"""

import sys
from pathlib import Path

import httpx

from smartclient.adapters.httpx import SmartTransport


def main(service: str, *files: str) -> None:
    """Classify the images, one after the other."""
    url = f"http://{service}.service.consul/classify"
    with httpx.Client(mounts={"all://*.service.consul": SmartTransport(idempotent=True)}, timeout=10) as client:
        for path in map(Path, files):
            response = client.post(url, content=path.read_bytes())
            response.raise_for_status()
            answer = response.json()
            best = answer["results"][0]["predictions"][0]
            print(f"{path.name}\t{best['label']}\t{answer['node']}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: httpx_client.py SERVICE IMAGE...")
    try:
        main(*sys.argv[1:])
    except (httpx.HTTPError, OSError) as error:
        sys.exit(f"httpx_client.py: {error}")
