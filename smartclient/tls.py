"""What a connection to an https node needs when the machine's own authorities are not enough.

A node says in its registration that it speaks TLS (``scheme=https``); what the program trusts is said here, by three
variables: TWOSTEP_CACERT, the nodes' authority as a PEM file, and TWOSTEP_CLIENT_CERT with TWOSTEP_CLIENT_KEY, what
this client shows to nodes that demand a certificate. The certificate must hold the address that the node registers.
"""

import ssl
from collections.abc import Mapping

from smartclient.errors import BadOption

CACERT, CERT, KEY = "TWOSTEP_CACERT", "TWOSTEP_CLIENT_CERT", "TWOSTEP_CLIENT_KEY"


def from_environment(environment: Mapping[str, str]) -> ssl.SSLContext | None:
    """Return a context made of the files the variables name, None when there are none. Raises ``BadOption``.

    The key may stand in the certificate's file.
    """
    authority, certificate, key = (environment.get(name, "") for name in (CACERT, CERT, KEY))
    if key and not certificate:
        raise BadOption(f"{KEY} is of no use alone; give the certificate in {CERT}")
    if not (authority or certificate):
        return None
    given = f"{CACERT}={authority}"
    try:
        context = ssl.create_default_context(cafile=authority or None)
        if certificate:
            given = f"{CERT}={certificate}" + (f" with {KEY}={key}" if key else "")
            # A password, so that an encrypted key is an error and no question on the terminal.
            context.load_cert_chain(certificate, key or None, password="")
    except OSError as error:  # ssl.SSLError is one
        hint = "; give PEM files, the key without a password" if isinstance(error, ssl.SSLError) else ""
        raise BadOption(f"{given} cannot be used: {error.strerror or error}{hint}") from error
    return context
