"""``twostep bench``: the figures of the documentation, printed by the command that stands beside them."""

import asyncio
import json
from typing import Any

import click

from infra.bench import client as client_bench
from infra.bench import dashboard as dashboard_bench
from infra.bench import node as node_bench
from infra.bench import registry as registry_bench
from infra.bench import standing
from infra.bench import start as start_bench
from infra.bench import tails as tails_bench


@click.group()
def bench() -> None:
    """Measure, side by side in one run, and print medians and ratios.

    \b
    Example:
      twostep bench start
      twostep bench registry --json
      twostep bench tails
      twostep bench client
      twostep bench node
      twostep bench dashboard
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


@bench.command()
@click.option(
    "--instances", default=10_000, show_default=True, type=click.IntRange(2, 100_000), help="Size of the service."
)
@click.option(
    "--readers", default=2000, show_default=True, type=click.IntRange(1, 10_000), help="Readers of the look-up service."
)
@click.option(
    "--rounds", default=4, show_default=True, type=click.IntRange(1, 100), help="How often each way has a turn."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def registry(*, instances: int, readers: int, rounds: int, as_json: bool) -> None:
    """Compare following a large service through Consul and through the look-up service, over a real Consul.

    Also: many readers at once, and look-ups while a cluster of three servers loses its leader. About four minutes.

    \b
    Example:
      twostep bench registry
      twostep bench registry --instances 1000 --readers 200 --rounds 1
    """
    effort = registry_bench.Effort(instances=instances, readers=readers, rounds=rounds)
    result = asyncio.run(registry_bench.run(effort, lambda words: click.echo(f"... {words}", err=True)))
    click.echo(json.dumps(result) if as_json else registry_as_text(result))


@bench.command()
@click.option(
    "--rounds", default=8, show_default=True, type=click.IntRange(1, 100), help="How often each policy has a turn."
)
@click.option(
    "--seconds", default=15.0, show_default=True, type=click.FloatRange(0.5, 60), help="Counted in each turn."
)
@click.option("--clients", default=20, show_default=True, type=click.IntRange(1, 200), help="Client processes.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def tails(*, rounds: int, seconds: float, clients: int, as_json: bool) -> None:
    """Compare the slowest answers of the default policy with plain rotation's, many clients sharing a fleet.

    Six engines of 50 ms at 70 % load; one of them ten times slower; then engines of
    1 ms, where asking must not cost. About fourteen minutes.

    \b
    Example:
      twostep bench tails --json
      twostep bench tails --rounds 2 --seconds 5
    """
    effort = tails_bench.Effort(rounds=rounds, seconds=seconds, clients=clients)
    result = asyncio.run(tails_bench.run(effort, lambda words: click.echo(f"... {words}", err=True)))
    click.echo(json.dumps(result) if as_json else tails_as_text(result))


@bench.command()
@click.option(
    "--slices", default=60, show_default=True, type=click.IntRange(4, 1000), help="How often each arm has a turn."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def client(*, slices: int, as_json: bool) -> None:
    """Measure what the client costs: beside bare aiohttp, beside requests, for each pick, and for each node.

    Over servers that do next to nothing, found through a registry of its own. About a minute and a half.

    \b
    Example:
      twostep bench client --json
      twostep bench client --slices 20
    """
    effort = client_bench.Effort(slices=slices)
    result = client_bench.run(effort, lambda words: click.echo(f"... {words}", err=True))
    click.echo(json.dumps(result) if as_json else client_as_text(result))


@bench.command()
@click.option(
    "--rounds", default=7, show_default=True, type=click.IntRange(1, 100), help="How often each arm has a turn."
)
@click.option("--seconds", default=2.5, show_default=True, type=click.FloatRange(0.5, 60), help="Counted in each turn.")
@click.option("--only", multiple=True, type=click.Choice(node_bench.ARMS), help="Only this arm; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def node(*, rounds: int, seconds: float, only: tuple[str, ...], as_json: bool) -> None:
    """Compare the node with what its machine can do without HTTP, a naive server, LitServe and mosec.

    LitServe and mosec are installed into environments of their own, once. About six minutes.

    \b
    Example:
      twostep bench node --json
      twostep bench node --rounds 3 --only bare_fastest --only node_auto
    """
    arms = [arm for arm in node_bench.ARMS if not only or arm in only]
    effort = node_bench.Effort(rounds=rounds, seconds=seconds, arms=arms)
    result = asyncio.run(node_bench.run(effort, lambda words: click.echo(f"... {words}", err=True)))
    click.echo(json.dumps(result) if as_json else standing.as_text(result))


@bench.command()
@click.option("--seconds", default=60.0, show_default=True, type=click.FloatRange(1, 3600), help="Of each phase.")
@click.option(
    "--instances", default=1000, show_default=True, type=click.IntRange(1, 20_000), help="Instances of each service."
)
@click.option("--services", default=5, show_default=True, type=click.IntRange(1, 100), help="Services.")
@click.option("--viewers", default=50, show_default=True, type=click.IntRange(1, 500), help="Pages that are looked at.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def dashboard(*, seconds: float, instances: int, services: int, viewers: int, as_json: bool) -> None:
    """Measure what the dashboard costs over a large fleet that changes 20 times a second, beside what it may.

    Nobody looking, then many who look, then pages one after another. About three minutes.

    \b
    Example:
      twostep bench dashboard
      twostep bench dashboard --instances 200 --viewers 10 --seconds 10 --json
    """
    effort = dashboard_bench.Effort(instances=instances, services=services, viewers=viewers, seconds=seconds)
    result = asyncio.run(dashboard_bench.run(effort, lambda words: click.echo(f"... {words}", err=True)))
    click.echo(json.dumps(result) if as_json else dashboard_bench.as_text(result))


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


def registry_as_text(result: dict[str, Any]) -> str:
    """The figures of ``bench registry`` as lines for people."""
    rows = (
        ("bytes received for one change", "bytes_per_change"),
        ("from change to callback, median, ms", "callback_p50_ms"),
        ("from change to callback, 99th percentile, ms", "callback_p99_ms"),
        ("event loop held at most in a round, median, ms", "stall_ms"),
        ("the worst round, ms", "worst_stall_ms"),
        ("in wall time, median, ms", "stall_wall_ms"),
        ("event loop held by the first list, median, ms", "first_list_stall_ms"),
        ("resident memory of the client, MB", "client_rss_mb"),
    )
    lines = [f"one service of {result['instances']} instances, followed by   {'Consul':>14} {'look-up service':>16}"]
    for words, key in rows:
        lines.append(f"  {words:<48} {result[f'{key}_consul']:>12,} {result[f'{key}_lookup']:>16,}")
    lines += [
        f"{result['readers']} readers of the look-up service",
        f"  from change to the first reader, median, ms      {result['first_reader_p50_ms']:>12,}",
        f"  from change to the last reader, median, ms       {result['last_reader_p50_ms']:>12,}",
        f"  from change to the last reader, 99th percentile  {result['last_reader_p99_ms']:>12,}",
        f"  memory of the service for one reader, kB         {result['kb_per_reader']:>12,}",
    ]
    if "outage_lookups" in result:
        lines += [
            "look-ups over a cluster of three whose leader is killed and brought back",
            f"  look-ups                                         {result['outage_lookups']:>12,}",
            f"  failed                                           {result['outage_failed']:>12,}",
            f"  age of the oldest list given, s                  {result['outage_oldest_list_s']:>12,}",
        ]
    return "\n".join(lines)


def tails_as_text(result: dict[str, Any]) -> str:
    """The figures of ``bench tails`` as lines for people."""
    default, slow = result["default"], result["one_slow"]
    versus = f"{default} / rotation"
    fleet = f"{result['nodes']} engines of {tails_bench.MEAN_MS:g} ms, {result['load']:.0%} loaded"
    lines = [f"{fleet} by {result['clients']} client processes; {result['rounds']} times {result['seconds']:g} s"]
    for policy, p99 in result["p99_ms"].items():
        lines.append(f"  {policy:<28} median {result['p50_ms'][policy]:>8,} ms, 99th percentile {p99:>8,} ms")
    lines += [
        f"  {versus:<28} {'':>18}{'99th percentile':>16} {result['ratio']:>8.3f}",
        f"  {'probes for each request':<28} {result['probe_share']:>8.3f}",
        f"one of them {slow['slower']:g} times slower, {slow['load']:.0%} loaded",
        *(f"  {arm:<28} {'':>18}99th percentile {p99:>8,} ms" for arm, p99 in slow["p99_ms"].items()),
        f"  {default + ' / without it':<28} {'':>18}99th percentile {slow['ratio']:>8.3f}",
        f"{result['nodes']} engines of {tails_bench.FAST_MS:g} ms, one client process that asks as fast as it can",
    ]
    for policy, rate in result["per_s_1ms"].items():
        lines.append(f"  {policy:<28} {rate:>8,} requests/s")
    lines += [
        f"  {versus:<28} {result['throughput_ratio_1ms']:>8.3f} (median of the rounds' ratios)",
        f"  {'probes for each request':<28} {result['probe_share_1ms']:>8.3f}",
    ]
    return "\n".join(lines)


def client_as_text(result: dict[str, Any]) -> str:
    """The figures of ``bench client`` as lines for people."""
    lines = [f"calls/s, medians of {result['slices']} slices of each arm (half of the ratios lie in)"]
    rows = (
        ("smart client / bare aiohttp, 1 kB", "ratio_1kb", "per_s_1kb", "aiohttp_per_s_1kb"),
        ("smart client / bare aiohttp, 100 kB", "ratio_100kb", "per_s_100kb", "aiohttp_per_s_100kb"),
        ("blocking client / requests, 1 kB", "sync_ratio_1kb", "sync_per_s_1kb", "sync_requests_per_s_1kb"),
    )
    for words, ratio, ours, theirs in rows:
        low, high = result[f"{ratio}_quartiles"]
        rates = f"{result[ours]:>8,} / {result[theirs]:>8,}"
        lines.append(f"  {words:<38} {rates} = {result[ratio]:.3f}   ({low:.3f} to {high:.3f})")
    lines.append("a pick and its release, us              10 nodes    1,000   10,000   10,000 / 10")
    for policy, costs in result["pick_us"].items():
        name = f"{policy} (the default)" if policy == result["default"] else policy
        cells = " ".join(f"{cost:>8.2f}" for cost in costs.values())
        lines.append(f"  {name:<38} {cells} {result['pick_flatness'][policy]:>13.3f}")
    lines.append(f"memory for each node                     {result['bytes_per_endpoint']:>8,} bytes")
    return "\n".join(lines)
