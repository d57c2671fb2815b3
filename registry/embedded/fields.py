"""What ``?filter`` can ask of each answer, as Consul documents it endpoint by endpoint.

Only fields this registry shows, and those that everybody's filters name although they are always empty here
(``Kind``, ``Connect.Native``).
"""

from registry.embedded.filtering import Fields, ListOf, MapOf

_ADDRESSES = MapOf(Fields({"Address": str, "Port": int}))
_WEIGHTS = Fields({"Passing": int, "Warning": int})
_CONNECT = Fields({"Native": bool})

NODE = Fields(
    {"ID": str, "Node": str, "Address": str, "Datacenter": str, "TaggedAddresses": MapOf(str), "Meta": MapOf(str)}
)
SERVICE = Fields(
    {
        "ID": str, "Service": str, "Kind": str, "Tags": ListOf(str), "Meta": MapOf(str), "Port": int, "Address": str,
        "TaggedAddresses": _ADDRESSES, "Weights": _WEIGHTS, "EnableTagOverride": bool, "Connect": _CONNECT,
    }
)  # fmt: skip
CHECK = Fields(
    {
        "Node": str, "CheckID": str, "Name": str, "Status": str, "Notes": str, "Output": str, "ServiceID": str,
        "ServiceName": str, "ServiceTags": ListOf(str), "Type": str,
    }
)  # fmt: skip
HEALTH = Fields({"Node": NODE, "Service": SERVICE, "Checks": ListOf(CHECK)})
INSTANCE = Fields(
    {name: kind for name, kind in NODE.by_name.items() if name != "Meta"}
    | {"NodeMeta": MapOf(str)}
    | {f"Service{name}": kind for name, kind in SERVICE.by_name.items() if name != "Service"}
    | {"ServiceName": str}
)
