"""What the buttons of an instance's page do, as ``curl`` commands to copy. Pure.

Every argument is quoted for a shell, for an address is what somebody registered. No token is in them: ``$TOKEN`` is the
reader's own.
"""

import json
import shlex

from registry.model import Instance

# Characters of an address; longer ones answer nobody.
_LONGEST = 300
_BEARER = '-H "Authorization: Bearer $TOKEN"'


def commands(instance: Instance, *, steerable: bool) -> tuple[tuple[str, str], ...]:
    """Return what each is for and the command; a machine that takes no orders is only asked whether it answers."""
    url = instance.url[:_LONGEST]
    if not steerable:
        return (("whether it answers", f"curl -i {shlex.quote(url + '/')}"),)
    path = instance.meta["load"][:_LONGEST]
    body = shlex.quote(json.dumps({"reason": "say why"}))
    return (
        ("what it says of its load", f"curl -s {shlex.quote(url + (path if path.startswith('/') else '/load'))}"),
        ("what is inside", f"curl -s {_BEARER} {shlex.quote(url + '/admin/state')}"),
        ("drain it", f"curl -X POST {_BEARER} -d {body} {shlex.quote(url + '/admin/drain')}"),
        ("call it back", f"curl -X POST {_BEARER} {shlex.quote(url + '/admin/undrain')}"),
    )
