"""What can go wrong between a program and its registry.

One root, flat families. ``retryable`` stands on the class: whether the same call, made again a little later, may
succeed without anybody changing anything. Messages name the service or instance and the next step, never a token.
"""

from typing import ClassVar


class RegistryError(Exception):
    """The root of everything this package raises on purpose."""

    retryable: ClassVar[bool] = False


class RegistryUnavailable(RegistryError):
    """No answer: refused, timed out, or the registry itself said it cannot answer now (5xx, no leader)."""

    retryable = True


class InvalidAnswer(RegistryError):
    """The registry answered, and the answer cannot be understood (truncated, wrong types, not JSON)."""

    retryable = True


class PermissionDenied(RegistryError):
    """The registry's access control refused the call (401 or 403)."""


class RegistrationRefused(RegistryError):
    """The registration itself is wrong, or its id belongs to somebody else."""


class UnknownInstance(RegistryError):
    """The registry does not know this instance id."""


class Unsupported(RegistryError):
    """This kind of directory cannot do that (a static list takes no registrations)."""


class ConfigurationError(RegistryError):
    """A registry address or option that cannot be used as written."""
