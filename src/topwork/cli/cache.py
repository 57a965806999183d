"""`topwork cache`: what is remembered, how much room it takes, and how to forget it."""

from __future__ import annotations

import json

import typer


def add_to(app: typer.Typer) -> None:
    """Add the group to the application."""
    group = typer.Typer(no_args_is_help=True, help="What is remembered between runs.")
    group.command()(info)
    group.command()(clear)
    app.add_typer(group, name="cache")


def info(as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """Show where the cache lies, its size and its limit."""
    from topwork.store.cache import open_cache

    facts = open_cache().info()
    if as_json:
        typer.echo(json.dumps(facts))
        return
    typer.echo(f"{facts['folder']}: {facts['bytes'] / 1e6:,.1f} MB, limit {facts['limit']}")
    for name, part in facts["namespaces"].items():
        typer.echo(f"  {name}: {part['entries']:,} entries, {part['bytes'] / 1e6:,.1f} MB")
    for note in facts["notes"]:
        typer.echo(note)


def clear(
    namespace: str = typer.Argument(None, help="Only this part, e.g. 'features'. Everything otherwise."),
) -> None:
    """Forget; everything in the cache can be computed again."""
    from topwork.store.cache import open_cache

    cache = open_cache()
    before = cache.info()
    cache.clear(namespace)
    typer.echo(f"Cleared {namespace or 'everything'} in {before['folder']}")
