"""Classify images with aiohttp, written as for any web server; two lines send each request to the node that is best.

    python aiohttp_client.py SERVICE IMAGE...

Where the service is comes from TWOSTEP_REGISTRY, Consul's own variables, or the Consul agent on this machine.
"""

import asyncio
import sys
from pathlib import Path

import aiohttp

from smartclient.adapters.aiohttp import SmartMiddleware


async def classify(session: aiohttp.ClientSession, url: str, path: Path) -> str:
    """Return one line about an image."""
    image = await asyncio.to_thread(path.read_bytes)
    async with session.post(url, data=image) as response:
        response.raise_for_status()
        answer = await response.json()
    best = answer["results"][0]["predictions"][0]
    return f"{path.name}\t{best['label']}\t{answer['node']}"


async def main(service: str, *files: str) -> None:
    """Classify all images at once."""
    url = f"http://{service}.service.consul/classify"
    async with (
        SmartMiddleware(idempotent=True) as smart,  # classifying twice does no harm
        aiohttp.ClientSession(middlewares=(smart,), timeout=aiohttp.ClientTimeout(total=10)) as session,
    ):
        for line in await asyncio.gather(*(classify(session, url, Path(file)) for file in files)):
            print(line)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: aiohttp_client.py SERVICE IMAGE...")
    try:
        asyncio.run(main(*sys.argv[1:]))
    except (aiohttp.ClientError, OSError) as error:
        sys.exit(f"aiohttp_client.py: {error}")
