"""What the transport on aiohttp is made of; ``smartclient.aiohttp_transport`` is the whole."""
