"""The terminal face: `bayespress serve`, `compress`, `inspect`, `select`, `unpack`, `keys` and `--version`."""

from typing import Annotated

import typer

from compressor import __version__
from service.compress import compress
from service.inspect import inspect
from service.key_commands import keys
from service.select import select
from service.serve import serve
from service.unpack import unpack

main = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bayespress {__version__}")
        raise typer.Exit


@main.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """Makes trained neural networks smaller, and proves it."""


main.command()(serve)
main.command()(compress)
main.command()(inspect)
main.command()(select)
main.command()(unpack)
main.add_typer(keys, name="keys")

if __name__ == "__main__":
    main()
