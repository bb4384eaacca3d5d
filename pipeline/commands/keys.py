"""`roadlens keys`: make and show CurveZMQ keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Make and show the keys with which publishers and subscribers know each other (CurveZMQ).",
    no_args_is_help=True,
)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Whose key it is, such as server or viewer-1.")],
    folder: Annotated[Path, typer.Option("--folder", "-d", help="Where the two files go.")] = Path(),
) -> None:
    """Make a key pair: NAME.key to hand out, NAME.key_secret to keep.

    Standard output gets the public key.
    """
    from pipeline.messages.sockets.keys import new_certificate, read_certificate

    public, secret = new_certificate(name, folder)
    typer.echo(f"{public} is to be handed out, {secret} to be kept", err=True)
    typer.echo(read_certificate(public).public)


@app.command()
def show(file: Annotated[Path, typer.Argument(help="A .key or .key_secret file.")]) -> None:
    """Print the public key of a certificate; the secret one is never printed."""
    from pipeline.messages.sockets.keys import read_certificate

    typer.echo(read_certificate(file).public)
