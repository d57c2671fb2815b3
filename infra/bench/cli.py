"""``twostep bench``: the figures of the documentation, printed by the command that stands beside them."""

import asyncio
import json
from typing import Any

import click

from infra.bench import start as start_bench


@click.group()
def bench() -> None:
    """Measure, side by side in one run, and print medians and ratios.

    \b
    Example:
      twostep bench start
    """


@bench.command()
@click.option(
    "--rounds", default=5, show_default=True, type=click.IntRange(1, 100), help="How often each arm has a turn."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def start(*, rounds: int, as_json: bool) -> None:
    """Compare reloading the model per image, loading it once, and a node; and the client with bare aiohttp.

    \b
    Example:
      twostep bench start --rounds 3
    """
    effort = start_bench.Effort(rounds=rounds)
    result = asyncio.run(start_bench.run(effort, lambda words: click.echo(f"... {words}", err=True)))
    click.echo(json.dumps(result) if as_json else as_text(result))


def as_text(result: dict[str, Any]) -> str:
    """The figures of ``bench start`` as lines for people."""
    rates = result["images_per_s"]
    nodes, echo = result["client"]["nodes"], result["client"]["echo"]
    title = (
        f"{result['machine']['cores']} cores, Python {result['machine']['python']}; MobileNetV2, JPEGs of"
        f" {result['image_kb']} kB, {start_bench.CONCURRENCY} at a time; medians of {len(nodes['ratios'])} rounds"
    )
    lines = [
        title,
        f"  a script that reloads the model per image  {rates['reload_per_image']:8.2f} images/s",
        f"  a script that loads it once, one by one    {rates['loaded_once']:8.2f} images/s",
        f"  the node                                   {rates['node']:8.2f} images/s",
    ]
    for words, rates in (("nodes with the digits model", nodes), ("servers that only echo", echo)):
        lines += [
            f"three {words}, the same URLs, requests/s",
            f"  bare aiohttp, rotating                     {rates['bare_aiohttp_per_s']:8.0f}",
            f"  the smart client                           {rates['smart_per_s']:8.0f}",
            f"  smart client / bare aiohttp                {rates['ratio']:8.3f}   (median of the rounds' ratios)",
        ]
    return "\n".join(lines)
