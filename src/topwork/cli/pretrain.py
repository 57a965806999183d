"""`topwork pretrain`: a backbone of one's own, from one's own images or from none at all."""

from __future__ import annotations

from pathlib import Path

import typer

from topwork.cli.places import places


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(places("cache")(pretrain))


def pretrain(
    data: list[str] = typer.Argument(..., help="Folders or tables of images, labelled or not, or fractals:..."),
    method: list[str] = typer.Option(..., help="supervised, multi_source, distillation(teacher='bundled'), simclr ..."),
    out: Path = typer.Option(..., help="Folder of the new backbone, then used as local:OUT."),
    arch: str = typer.Option(None, help="A network of timm, untrained. Default: a thin resnet10t, or --start's."),
    time: str = typer.Option(None, help="How long it may take: 20m, 2h. The pace is measured first."),
    steps: int = typer.Option(None, help="Steps of training, instead of --time."),
    size: int = typer.Option(None, help="Side of the images that the network sees, in pixels. Default: 96."),
    batch_size: int = typer.Option(None, help="Images per step. Chosen and said otherwise."),
    rate: float = typer.Option(None, help="Peak learning rate. Chosen and said otherwise."),
    seed: int = typer.Option(0, help="One seed for everything."),
    start: str = typer.Option(None, help="Begin with this backbone's weights: local:FOLDER, timm:NAME."),
    probe: str = typer.Option(None, help="Labelled data to judge the result by. Default: scikit-learn's digits."),
    save_every: float = typer.Option(60.0, min=0, help="Seconds between two checkpoints."),
    track: str = typer.Option(None, help="Where loss curves go besides OUT/log.jsonl: tensorboard or mlflow."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Only the result."),
) -> None:
    """Train a backbone; stopped or killed, the same command goes on where it was."""
    from topwork import verbs
    from topwork.cli.console import watching

    with watching(quiet) as watch:
        card = verbs.pretrain(
            *data,
            method=method,
            out=out,
            arch=arch,
            time=time,
            steps=steps,
            size=size,
            batch_size=batch_size,
            rate=rate,
            seed=seed,
            start=start,
            probe=probe,
            save_seconds=save_every,
            track=track,
            watch=watch,
        )
    scores = card["scores"]
    gain = next(scores[name] for name in sorted(scores, reverse=True) if name.startswith("gain over"))
    typer.echo(f"{scores['probe']}: {scores['trained']['accuracy']:.1%}, {gain}")
    typer.echo(f"backbone {out}, {card['seconds']:,.0f} s\nuse      topwork fit DATA --backbone local:{out}")
