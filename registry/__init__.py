"""What is alive, and where: look services up, follow them, and say that an instance is there."""

from registry.connect import connect
from registry.directory import Check, Directory, HttpCheck, Registration, TcpCheck, TtlCheck, Watch, WatchStatus
from registry.errors import RegistryError
from registry.model import Delta, Health, Instance, Snapshot, diff
from registry.registration import Registrar, RegistrarState

__all__ = [
    "Check",
    "Delta",
    "Directory",
    "Health",
    "HttpCheck",
    "Instance",
    "Registrar",
    "RegistrarState",
    "Registration",
    "RegistryError",
    "Snapshot",
    "TcpCheck",
    "TtlCheck",
    "Watch",
    "WatchStatus",
    "connect",
    "diff",
]
