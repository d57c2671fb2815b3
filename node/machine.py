"""What a node asks of its machine: cores it may use, memory given back, a port to listen on, an address to be found at.

None of this waits or sends anything.
"""

import contextlib
import ctypes
import errno
import gc
import logging
import os
import socket
import threading

from node.errors import NodeError, PortInUse

log = logging.getLogger(__name__)

# Connections the kernel holds while the loop is busy; Linux cuts it to net.core.somaxconn.
BACKLOG = 1024
# An address nobody has (RFC 5737, TEST-NET-1): the route towards it is the default route.
_ELSEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
# Of mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_WILDCARDS = ("0.0.0.0", "::", "")  # noqa: S104 - recognised here, not bound


def cores() -> int:
    """How many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def bound_heap() -> None:
    """Have memory for large pictures and bodies given back as soon as they are done with, for this whole process.

    By itself glibc begins, after the first of them, to keep blocks of up to 32 MiB for later: after a few pictures of
    50 megapixels 400 MB stayed. Fixed thresholds cost neither decoding nor TensorFlow anything that can be measured.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 8 * 1024 * 1024)
        libc.mallopt(_M_TRIM_THRESHOLD, 8 * 1024 * 1024)


def settle_memory() -> None:
    """Give back what loading or unloading a model has left behind; takes tenths of a second.

    A model's own structures hold each other in circles, and glibc keeps the pages of what is freed: 700 MB after
    loading a VGG16.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def end_within(seconds: float) -> None:
    """End this process with status 0 after so long, unless it has ended by then: Python waits for all threads for ever.

    For a program that is done, and may have left a model behind that hangs, or one that is still loading.
    """

    def end() -> None:
        log.warning("a thread has not come to its end within %g s; ending without it", seconds)
        logging.shutdown()
        os._exit(0)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def listen(host: str, port: int) -> socket.socket:
    """Bind a TCP socket (port 0: any free one), ready to be served. Raises ``PortInUse`` and ``NodeError``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(f"port {port} on {host} is in use; choose another with --port, or 0 for any") from error
        raise NodeError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
    except OverflowError as error:
        sock.close()
        raise NodeError(f"{port} is no port; give one from 0 to 65535") from error
    return sock


def advertised(host: str, registry: str) -> str:
    """Return the address others reach this node at: ``host``, or for a wildcard the one this machine would send from.

    ``registry`` is the registry's host. A registry on this machine says nothing about the way others come, so the
    default route decides then; without any route the loopback address remains.
    """
    if host not in _WILDCARDS:
        return host
    family = socket.AF_INET6 if host == "::" else socket.AF_INET
    source = _source_address(family, registry) if registry else ""
    if not source or source.startswith("127.") or source == "::1":
        source = _source_address(family, _ELSEWHERE[family])
    return source or ("::1" if family == socket.AF_INET6 else "127.0.0.1")


def _source_address(family: socket.AddressFamily, towards: str) -> str:
    """Ask the routing table by connecting a UDP socket, which sends nothing."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((towards, 9))
        except OSError:  # no route, or a name that does not resolve
            return ""
        return str(probe.getsockname()[0])
