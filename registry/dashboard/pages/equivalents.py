"""The commands that ask what a look-up page shows, to copy: ours, and Consul's own API. Pure.

Every argument is quoted for a shell, for an address that somebody was sent may hold anything. No token is in them.
"""

import json
import shlex
from collections.abc import Iterator
from urllib.parse import parse_qsl, quote

from registry.query import Query

# What ``ConsulSettings.source`` calls them, and what Consul does.
_OPTIONS = {"dc": "dc", "namespace": "ns"}


def twostep(query: Query, source: str) -> str:
    """Return the look-up as a ``twostep`` command with explanations; empty when no service is asked for."""
    if not query.service:
        return ""
    words = ["twostep", "lookup", "--explain", f"--registry={source}"]
    words += [f"--{name}={value}" for name, value in _filters(query)]
    words += [f"--meta={key}={value}" for key, value in query.meta.items()]
    # A name that begins with a dash is no option.
    return shlex.join([*words, *(["--"] if query.service.startswith("-") else []), query.service])


def curl(query: Query, source: str) -> str:
    """Return the look-up as a ``curl`` command; empty when no service is asked for, or no Consul is."""
    place, _, options = source.partition("?")
    scheme, _, host = place.partition("://")
    if not query.service or scheme not in ("consul", "http", "https"):
        return ""
    url = f"{'http' if scheme == 'consul' else scheme}://{host}"
    words = ["curl", "-G", f"{url}/v1/health/service/{quote(query.service, safe='', errors='replace')}"]
    if query.passing_only:
        words += ["-d", "passing"]
    pairs = [(_OPTIONS[name], value) for name, value in parse_qsl(options) if name in _OPTIONS]
    if query.tag:
        pairs.append(("tag", query.tag))
    conditions = " and ".join(_conditions(query))
    if conditions:
        pairs.append(("filter", conditions))
    for name, value in pairs:
        words += ["--data-urlencode", f"{name}={value}"]
    return shlex.join(words)


def _filters(query: Query) -> Iterator[tuple[str, str]]:
    yield from ((name, value) for name in ("tag", "zone", "version") if (value := getattr(query, name)))


def _conditions(query: Query) -> Iterator[str]:
    wanted = {"zone": query.zone, "version": query.version} | dict(query.meta)
    for key, value in wanted.items():
        if value:
            yield f"Service.Meta[{json.dumps(key)}] == {json.dumps(value, ensure_ascii=False)}"
