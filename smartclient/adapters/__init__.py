"""Existing programs through the balancer: ``http://SERVICE.service.consul/…`` goes step 1, step 2.

One module for each library, imported by whoever uses it: ``aiohttp``, ``httpx``, ``requests``. The last two need the
extra of the same name.
"""
