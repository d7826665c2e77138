"""The command ``edge-pack``: parses, calls one function, prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from edge_contract.errors import InputFault
from edge_contract.ports import command
from edge_pack import (
    broker_commands,
    doctor,
    mirror_commands,
    printing,
    reading,
    release_commands,
)
from edge_pack.building import STAGES, Built, build
from edge_pack.compress.modes import QUANTIZE, Optimize, Quantize
from edge_pack.config import (
    BATCH,
    MAX_FLIPS,
    MAX_METRIC_DROP,
    BuildConfig,
    DeclaredTask,
    read_labels,
    share,
)
from edge_pack.gates import commands as gates
from edge_pack.origins.uris import as_model
from edge_pack.papers import commands as papers

app = typer.Typer(
    help="Package trained models into small, proven, signed ONNX bundles.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
_Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="An .edgepack file.")]


@app.command("build")
def build_command(
    *,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A model file, a folder (MLflow's MLmodel, Vertex AI) or an archive (SageMaker's "
            "model.tar.gz, .zip); s3://, gs://, az:// or https://; mlflow:models:/NAME/VERSION, "
            "mlflow:models:/NAME@ALIAS or mlflow:runs:/RUN/PATH. #FILE behind it names one file "
            "of several.",
        ),
    ],
    name: Annotated[str, typer.Option(help="Name of the model, such as pump.")],
    version: Annotated[str, typer.Option(help="Version of the bundle, such as 1.0.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the bundle goes.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Rows as a device will see them: .csv, .parquet or .npz. Networks may do "
            "without: inputs are then drawn from the model's own shapes."
        ),
    ] = None,
    target: Annotated[str, typer.Option(help="Column with the true answer.")] = "",
    time_column: Annotated[str, typer.Option(help="Column that orders the rows in time.")] = "",
    rows_per_hour: Annotated[
        float,
        typer.Option(
            help="Rows that one device will answer. What cannot show drift at that rate is not "
            "monitored, and the build says which rate it would need."
        ),
    ] = 0.0,
    min_shift: Annotated[
        float,
        typer.Option(
            help="Least movement of a feature that counts as drift, in standard deviations; 0: "
            "as little as the data can show. For devices that differ from one another: five "
            "times the standard deviation of their means."
        ),
    ] = 0.0,
    quantize: Annotated[
        str, typer.Option(help=f"A form to take: {', '.join(QUANTIZE)}. auto searches for one.")
    ] = "auto",
    optimize: Annotated[
        str,
        typer.Option(
            help="What a search aims for: size on the wire, latency, memory, or balanced (the "
            "least product of the three)."
        ),
    ] = "size",
    max_flips: Annotated[
        str, typer.Option(help="Labels that may change, as 0.1% or 0.001 of the rows.")
    ] = f"{MAX_FLIPS:.1%}",
    max_diff: Annotated[
        float | None,
        typer.Option(
            help="Largest difference of a probability [0.05], or of a value in standard "
            "deviations of the original's values [0.01]."
        ),
    ] = None,
    max_metric_drop: Annotated[
        str,
        typer.Option(
            help="Accuracy or R2 that a form may cost; judged where --target is known "
            f"[{MAX_METRIC_DROP:.1%}]. Given, trees may lose something too."
        ),
    ] = "",
    batch: Annotated[
        int, typer.Option(help="Rows of the second batch size that is timed.")
    ] = BATCH,
    recipe: Annotated[
        Path | None,
        typer.Option(help="NAME.recipe.json of an earlier build: repeat it without a search."),
    ] = None,
    prove_runtime: Annotated[
        bool,
        typer.Option(
            "--prove-runtime",
            help="Install the oldest ONNX Runtime of --runtime and run the golden samples there.",
        ),
    ] = False,
    runtime: Annotated[
        str,
        typer.Option(help="The oldest ONNX Runtime among the devices [>=1.18, or the --device's]."),
    ] = "",
    require: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DEMAND",
            help='A figure that the bundle must have: "roc_auc>=0.9", of a slice '
            '"recall[site=graz]>=0.8", between slices "accuracy_difference[site]<=5%", of the '
            '95 % interval\'s end "roc_auc.low>=0.9". May be repeated.',
        ),
    ] = None,
    slices: Annotated[
        list[str] | None,
        typer.Option(
            "--slice",
            metavar="COLUMN",
            help="Tell every figure for each group of this column too (numbers: by quartile). "
            "The model need not read it. May be repeated.",
        ),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(help="An older .edgepack to compare with on the same rows."),
    ] = None,
    max_regressions: Annotated[
        str,
        typer.Option(help="Rows that the baseline got right and this may get wrong, as 1%. [any]"),
    ] = "",
    device: Annotated[
        str,
        typer.Option(
            help="Memory and latency to keep: pi3, pi4, pi5, container, or a .toml file like them."
        ),
    ] = "",
    strict_data: Annotated[
        bool,
        typer.Option("--strict-data", help="Stop where the rows raise a warning, such as a leak."),
    ] = False,
    task: Annotated[
        str, typer.Option(help="What a network's output is: classification or regression.")
    ] = "",
    labels: Annotated[
        str, typer.Option(help="Labels of a network's output columns, as ok,worn,broken.")
    ] = "",
    keys: Annotated[
        Path | None, typer.Option(help="Directory of signing keys (edge-pack keys init).")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Seal a bundle beyond the budget; its manifest says so.")
    ] = False,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Run a pickle that was fetched, and agree to the untrusted types of a .skops "
            "file.",
        ),
    ] = False,
    measure: Annotated[
        bool, typer.Option(help="Time the bundle here and write NAME.measured.json.")
    ] = True,
    provenance: Annotated[
        bool,
        typer.Option(
            help="Record in the manifest the git commit of the model's folder, DVC's entries, the "
            "MLflow run and this command, files by base name."
        ),
    ] = True,
    commit: Annotated[
        str, typer.Option(help="Code commit that the model came from, instead of git's.")
    ] = "",
    run_id: Annotated[str, typer.Option(help="Training run that the model came from.")] = "",
    licence: Annotated[str, typer.Option(help="Licence of the model.")] = "",
    intended_use: Annotated[str, typer.Option(help="What the model is for.")] = "",
    allow_calibration: Annotated[
        float,
        typer.Option(
            metavar="SHIFT",
            help="Let devices put scores right by labels that come there, by at most this much, "
            "such as 0.2; 0: never.",
        ),
    ] = 0.0,
    calibration_labels: Annotated[
        int, typer.Option(help="With fewer labels on a device nothing moves there.")
    ] = 200,
    json: _Json = False,
) -> None:
    """Turn a trained model into a bundle: convert, compress, compare with the original, seal.

    Examples:

      edge-pack build pump.joblib --data rows.csv --target failed --name pump --version 1.0
      -o pump-1.0.edgepack

      edge-pack build net.onnx --data samples.npz --name net --version 2.1 --quantize
      int8-storage -o net-2.1.edgepack

      edge-pack build pump.joblib --data rows.csv --target failed --name pump --version 1.1
      -o pump-1.1.edgepack --slice site --require "recall[site=graz]>=0.8"
      --baseline pump-1.0.edgepack --max-regressions 1% --device pi4

      edge-pack build s3://models/pump/model.tar.gz --trust --data rows.parquet --target failed
      --name pump --version 1.2 -o pump-1.2.edgepack

      edge-pack build mlflow:models:/pump@champion --data rows.csv --name pump --version 1.3
      -o pump-1.3.edgepack
    """
    mode: Quantize = quantize  # type: ignore[assignment]  # BuildConfig refuses any other text
    aim: Optimize = optimize  # type: ignore[assignment]  # as above
    drop = share(max_metric_drop, "--max-metric-drop") if max_metric_drop else None
    declared: DeclaredTask = task  # type: ignore[assignment]  # as above
    config = BuildConfig(
        model=as_model(model), data=data, name=name, version=version, out=out, target=target,
        time_column=time_column, rows_per_hour=rows_per_hour, min_shift=min_shift,
        quantize=mode,
        max_flips=share(max_flips, "--max-flips"), max_diff=max_diff, max_metric_drop=drop,
        optimize=aim, batch=batch, recipe=recipe,
        prove_runtime=prove_runtime, runtime=runtime, require=tuple(require or ()),
        slices=tuple(slices or ()), baseline=baseline, device=device, strict_data=strict_data,
        max_regressions=share(max_regressions, "--max-regressions") if max_regressions else None,
        task=declared,
        labels=read_labels(labels), force=force, trust=trust, keys=keys,
        measure=measure, provenance=provenance, commit=commit, run_id=run_id, licence=licence,
        intended_use=intended_use, allow_calibration=allow_calibration,
        calibration_labels=calibration_labels,
    )  # fmt: skip
    built = _build_with_bar(config)
    if json:
        typer.echo(printing.to_json(printing.built_object(built)))
    else:
        printing.show_built(printing.console(), built)


def _build_with_bar(config: BuildConfig) -> Built:
    """Build, with a bar of the stages on stderr where that is a terminal."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("build", total=len(STAGES))

        def progress(stage: str) -> None:
            bar.update(task, description=stage, completed=STAGES.index(stage.partition(":")[0]))

        def notice(text: str) -> None:
            console.print(f"notice: {text}", markup=False, highlight=False, soft_wrap=True)

        return build(config, progress, notice)


@app.command()
def inspect(
    bundle: _Bundle,
    rows_per_hour: Annotated[
        float,
        typer.Option(min=0.0, help="Rate for the drift table [the build's, or 60]."),
    ] = 0.0,
    json: _Json = False,
) -> None:
    """Show what a bundle says of itself, what drift it will show, what was measured of it here.

    Examples:

      edge-pack inspect pump-1.0.edgepack --json

      edge-pack inspect pump-1.0.edgepack --rows-per-hour 600
    """
    opened = reading.open_bundle(bundle)
    measured = reading.measured_beside(bundle, opened.digest)
    size = bundle.stat().st_size
    if json:
        typer.echo(printing.to_json(printing.bundle_object(opened, size, measured, rows_per_hour)))
    else:
        printing.show_bundle(printing.console(), opened, size, measured, rows_per_hour)


@app.command()
def verify(
    bundle: _Bundle,
    keys: Annotated[Path | None, typer.Option(help="Directory of keys that it trusts.")] = None,
    root: Annotated[Path | None, typer.Option(help="Trusted root.json.")] = None,
    json: _Json = False,
) -> None:
    """Check archive, digests, golden samples on this machine, and the signature.

    Example: edge-pack verify pump-1.0.edgepack --keys keys
    """
    if keys and root:
        raise InputFault("--keys and --root are two ways to say whom to trust: pass one")
    verdict = reading.verify(bundle, keys=keys, root=root)
    if json:
        typer.echo(
            printing.to_json(
                {
                    "digest": verdict.bundle.digest,
                    "valid": True,
                    "signature": verdict.signature,
                    "steps": verdict.steps,
                }
            )
        )
        return
    for step in verdict.steps:
        typer.echo(step)
    typer.echo(f"{bundle} holds: {verdict.bundle.digest}")


@app.command()
def predict(
    bundle: _Bundle,
    data: Annotated[Path, typer.Option(help="Rows: .csv, .parquet or .npz.")],
    json: _Json = False,
) -> None:
    """Predict every row of a file with a bundle, as a device would.

    Example: edge-pack predict pump-1.0.edgepack --data rows.csv --json
    """
    predictions = reading.predict(bundle, data)
    if not json:
        printing.show_predictions(printing.console(), predictions)
        return
    for prediction in predictions:
        sys.stdout.write(printing.to_json(printing.prediction_object(prediction)) + "\n")


release_commands.register(app)
broker_commands.register(app)
mirror_commands.register(app)
papers.register(app)
gates.register(app)
doctor.register(app)


command.finish(app, "edge-pack")


def main() -> None:
    """Run the command; errors become a line on stderr and an exit code."""
    command.run(app)


if __name__ == "__main__":
    main()
