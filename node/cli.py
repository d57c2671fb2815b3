"""The commands ``train`` and ``node``.

Only what parsing needs is imported here; TensorFlow comes when a model is trained or loaded, so that help, a missing
folder and a taken port are answered at once.
"""

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from node.server import NodeServer
    from node.training import Progress, Trained

# Seconds a node that has stopped gives its threads to end.
_LEAVE = 2.0


@click.command()
@click.argument("source", metavar="digits|FOLDER")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Model folder.  [default: models/NAME]")
@click.option("--base", default="MobileNetV2", show_default=True, help="Backbone, a name in keras.applications.")
@click.option(
    "--weights", default="imagenet", show_default=True, help="Of the backbone: imagenet (downloaded), none, or a file."
)
@click.option("--epochs", type=click.IntRange(1), help="Times through the images.  [default: 20 for digits, else 5]")
@click.option(
    "--fine-tune", type=click.IntRange(0), default=0, show_default=True, help="Further epochs with all layers trained."
)
@click.option("--image-size", type=click.IntRange(32, 1024), default=224, show_default=True, help="Side in pixels.")
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True, help="Images a training step.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def train(source: str, out: Path | None, as_json: bool, **options: Any) -> None:
    """Train a model and write it as the next version of a model folder.

    'digits' trains a small network on scikit-learn's handwritten digits, in seconds and without a download. FOLDER has
    one sub-folder of images for each class; a backbone trained on ImageNet is adapted to them.

    \b
    Example:
      twostep train digits --out models/digits
      twostep train photos/ --out models/photos --base EfficientNetB0 --epochs 10
    """
    from node.training import DIGITS_EPOCHS, train_digits, train_folder

    folder = out or Path("models") / (Path(source).absolute().name or "model")
    with _progress() as tell:
        if source == "digits" and not Path(source).is_dir():
            done = train_digits(folder, epochs=options["epochs"] or DIGITS_EPOCHS, tell=tell)
        else:
            done = train_folder(
                Path(source),
                folder,
                base=options["base"],
                weights=options["weights"],
                epochs=options["epochs"] or 5,
                fine_tune_epochs=options["fine_tune"],
                image_size=options["image_size"],
                batch=options["batch"],
                tell=tell,
            )
    for each in done.skipped:
        click.echo(f"skipped {each.path}: {each.why}", err=True)
    if as_json:
        click.echo(json.dumps(_summary(done)))
        return
    click.echo(
        f"wrote {done.folder}: right on {done.accuracy:.1%} of {done.held_out} held-out images "
        f"(trained on {done.trained_on}, {len(done.labels)} labels)"
    )
    if done.samples is not None:
        click.echo(f"held-out images to classify: {done.samples}")
    click.echo(f"next: twostep node --model {folder}")


@click.command()
@click.option(
    "--model",
    "models",
    required=True,
    multiple=True,
    metavar="[NAME=]MODEL",
    help="Model folder, SavedModel, .keras, .tflite or .onnx file, or keras:APPLICATION; may be repeated.",
)
@click.option(
    "--versions", default="latest", show_default=True, help="Of a model folder: latest, latest:2, all, or 1,3."
)
@click.option("--label", "version_labels", multiple=True, metavar="[MODEL:]LABEL=VERSION", help="A name for a version.")
@click.option(
    "--watch-models",
    is_flag=False,
    flag_value=5.0,
    default=0.0,
    type=click.FloatRange(0),
    metavar="[SECONDS]",
    help="Look for new versions every so often, load them, swap.  [5 if no number is given]",
)
@click.option(
    "--runtime",
    default="",
    type=click.Choice(["", "auto", "tensorflow", "litert", "onnx", "python"]),
    help="What runs the model; auto measures and keeps the fastest.  [default: what it was made for]",
)
@click.option("--quantize", default="", type=click.Choice(["", "int8"]), help="Weights and sums in 8 bits (LiteRT).")
@click.option("--samples", type=click.Path(path_type=Path), help="Pictures to try runtimes on.  [default: samples/]")
@click.option("--name", default="", help="Service to register as.  [default: the first model's name]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any free one.")
@click.option("--advertise", default="", help="Address others reach this node at.  [default: found out]")
@click.option(
    "--registry", default="", help="Registry to register in.  [default: the environment's, else local Consul]"
)
@click.option("--no-register", is_flag=True, help="Serve without a registry.")
@click.option("--id", "node_id", default="", help="This node's id.  [default: SERVICE-RANDOM]")
@click.option("--zone", default="", help="Where it stands, for clients that prefer their own zone.")
@click.option("--tag", "tags", multiple=True, help="A tag in the registry; may be repeated.")
@click.option("--weight", type=click.IntRange(1, 65535), default=1, show_default=True, help="Share of the traffic.")
@click.option("--labels", type=click.Path(path_type=Path), help="File with one label a line, for a bare model.")
@click.option("--check-interval", type=click.FloatRange(0.1), default=2.0, show_default=True, help="Seconds.")
@click.option("--max-batch", type=click.IntRange(1, 1024), default=32, show_default=True, help="Images a run.")
@click.option("--max-body-mb", type=click.FloatRange(0.001), default=64.0, show_default=True, help="MiB a request.")
@click.option(
    "--queue-limit-ms", type=click.FloatRange(1), default=2000.0, show_default=True, help="Longest predicted wait."
)
@click.option("--body-timeout", type=click.FloatRange(0.1), default=30.0, show_default=True, help="Seconds for a body.")
@click.option("--header-timeout", type=click.FloatRange(0.1), default=10.0, show_default=True, help="Seconds.")
@click.option("--max-connections", type=click.IntRange(8), default=1024, show_default=True, help="At once.")
@click.option("--token-file", type=click.Path(path_type=Path), help="Demand one of these bearer tokens for inference.")
@click.option("--admin-token-file", type=click.Path(path_type=Path), help="Allow steering (/admin) to these tokens.")
@click.option("--tls-certificate", type=click.Path(path_type=Path), help="Serve https with this chain (PEM).")
@click.option("--tls-key", type=click.Path(path_type=Path), help="The certificate's key (PEM).")
@click.option("--tls-client-ca", type=click.Path(path_type=Path), help="Demand client certificates of this CA (PEM).")
@click.option("--drain-grace", type=click.FloatRange(0), default=1.5, show_default=True, help="Seconds.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="info",
    show_default=True,
)
def node(**options: Any) -> None:
    """Serve models over HTTP and register.

    The node speaks POST /classify (an image, or a form with several), the Open Inference Protocol under /v2 and
    TensorFlow Serving's REST under /v1; GET /openapi.json lists everything. SIGTERM or Ctrl-C drains it: it leaves the
    registry first, finishes what it has, and ends; a second one hurries.

    \b
    Example:
      twostep node --model models/digits --port 0
      twostep node --model models/photos --watch-models --runtime auto
      twostep node --model cats=a.onnx --model dogs=models/dogs --versions latest:2 --label dogs:stable=3
      curl --data-binary @7.png http://127.0.0.1:8080/classify
    """
    from node import settings
    from node.config import NodeConfig
    from node.machine import end_within
    from node.run import serve
    from node.runtimes.select import Choice

    logging.basicConfig(
        level=options["log_level"].upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    wanted = settings.wanted(options["versions"])
    config = NodeConfig(
        models=tuple(settings.model(text, wanted, options["labels"]) for text in options["models"]),
        runtime=Choice(
            runtime=options["runtime"],
            quantize=options["quantize"],
            batches=tuple(sorted({1, min(8, options["max_batch"]), options["max_batch"]})),
            samples=options["samples"],
        ),
        watch=options["watch_models"],
        labels=tuple(settings.label(text) for text in options["version_labels"]),
        service=options["name"],
        id=options["node_id"],
        host=options["host"],
        port=options["port"],
        advertise=options["advertise"],
        registry=options["registry"],
        register=not options["no_register"],
        zone=options["zone"],
        tags=options["tags"],
        weight=options["weight"],
        check_interval=options["check_interval"],
        max_batch=options["max_batch"],
        max_body=int(options["max_body_mb"] * 2**20),
        body_timeout=options["body_timeout"],
        header_timeout=options["header_timeout"],
        max_connections=options["max_connections"],
        queue_limit=options["queue_limit_ms"] / 1e3,
        drain_grace=options["drain_grace"],
        token_file=options["token_file"],
        admin_token_file=options["admin_token_file"],
        tls_certificate=options["tls_certificate"],
        tls_key=options["tls_key"],
        tls_client_ca=options["tls_client_ca"],
    )

    async def run() -> None:
        await serve(config, announce=_announce)
        end_within(_LEAVE)

    asyncio.run(run())


def _announce(server: "NodeServer") -> None:
    where = f"registered as {server.service} at {server.registry}" if server.registry else "not registered"
    click.echo(f"{server.id} ready at {server.url} ({where})")
    sys.stdout.flush()


def _summary(done: "Trained") -> dict[str, object]:
    return {
        "folder": str(done.folder),
        "name": done.name,
        "version": done.version,
        "labels": done.labels,
        "accuracy": round(done.accuracy, 4),
        "trained_on": done.trained_on,
        "held_out": done.held_out,
        "samples": None if done.samples is None else str(done.samples),
        "skipped": [{"path": str(each.path), "why": each.why} for each in done.skipped],
    }


@contextlib.contextmanager
def _progress() -> "Iterator[Callable[[Progress], None]]":
    """A bar on standard error where that is a terminal, silence elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[note]}"),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, progress.TaskID] = {}

        def tell(now: "Progress") -> None:
            if now.stage not in tasks:
                tasks[now.stage] = bars.add_task(now.stage, total=now.total, note="")
            bars.update(tasks[now.stage], completed=now.done, note=now.note)

        yield tell
