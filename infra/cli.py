"""The ``twostep`` command: gathers the packages' sub-commands and turns their errors into one line each.

Commands are imported when used, so ``twostep --help`` costs no TensorFlow. Exit status: 0 done, 1 failed (one line on
standard error, with the next step), 2 wrong usage, 130 interrupted.
"""

import importlib
from typing import Any

try:
    import click
except ModuleNotFoundError:
    raise SystemExit("error: the twostep command needs its extra: pip install 'twostep[cli]'") from None

from infra.consul.agent import ConsulUnavailable
from infra.fleet import FleetError
from node.errors import NodeError
from registry.errors import RegistryError
from smartclient.errors import ClientError

COMMANDS = {  # in the order a newcomer meets them
    "demo": "infra.demo:demo",
    "registry": "registry.cli:registry",
    "train": "node.cli:train",
    "node": "node.cli:node",
    "lookup": "registry.cli:lookup",
    "infer": "smartclient.cli:infer",
    "dashboard": "registry.dashboard.cli:dashboard",
    "simulate": "smartclient.simulation.cli:simulate",
    "bench": "infra.bench.cli:bench",
}
EXTRAS = {
    "tensorflow": "node",
    "keras": "node",
    "numpy": "node",
    "PIL": "node",
    "sklearn": "demo",
    "rich": "cli",
    "jinja2": "dashboard",
    "markupsafe": "dashboard",
}


class Commands(click.Group):
    """The group; a sub-command's module is imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """See click."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        """See click."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the sub-command; what went wrong becomes one line and an exit status."""
        try:
            return super().invoke(ctx)
        except (RegistryError, NodeError, ClientError, ConsulUnavailable, FleetError) as error:
            raise click.ClickException(str(error)) from error
        except ModuleNotFoundError as error:
            extra = EXTRAS.get((error.name or "").partition(".")[0])
            if extra is None:
                raise
            message = f"{error.name} is not installed: pip install 'twostep[{extra}]'"
            raise click.ClickException(message) from error
        except KeyboardInterrupt:
            ctx.exit(130)


@click.command(cls=Commands)
@click.version_option(package_name="twostep")
def main() -> None:
    """Serve machine-learning models from many machines without a proxy.

    Nodes register in Consul; a client looks the healthy ones up, then sends each request straight to one of them.

    \b
    Example:
      twostep demo                                   the whole thing on this machine
      twostep train digits --out models/digits       a small model, in seconds
      twostep registry                               a registry for one machine
      twostep node --model models/digits             one node, as often as you like
      twostep infer digits models/digits/samples     classify a folder of images
    """


if __name__ == "__main__":
    main(prog_name="twostep")
