"""Classify images with requests, written as for any web server; one line sends each request to the node that is best.

    python requests_client.py SERVICE IMAGE...

Where the service is comes from TWOSTEP_REGISTRY, Consul's own variables, or the Consul agent on this machine.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

from smartclient.adapters.requests import SmartAdapter


def main(service: str, *files: str) -> None:
    """Classify the images, eight at a time."""
    url = f"http://{service}.service.consul/classify"
    with requests.Session() as session, ThreadPoolExecutor(8) as threads:
        session.mount("http://", SmartAdapter(idempotent=True))

        def classify(path: Path) -> str:
            with path.open("rb") as image:
                response = session.post(url, data=image, timeout=10)
            response.raise_for_status()
            answer = response.json()
            best = answer["results"][0]["predictions"][0]
            return f"{path.name}\t{best['label']}\t{answer['node']}"

        for line in threads.map(classify, map(Path, files)):
            print(line)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: requests_client.py SERVICE IMAGE...")
    try:
        main(*sys.argv[1:])
    except (requests.RequestException, OSError) as error:
        sys.exit(f"requests_client.py: {error}")
