"""Options that would do nothing beside others: they are refused, for whoever gives them expects something of them."""

from __future__ import annotations

import typer

from engines.errors import UsageError


def refuse_idle(context: typer.Context, why: str, *names: str) -> None:
    """See that none of these options was given.

    Args:
        context: of the command.
        why: they would do nothing; goes behind the option's flag.
        names: of the command's parameters.

    Raises:
        UsageError: one of them stands on the command line.
    """
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name) if parameter.name in names else None
        if source is not None and source.name == "COMMANDLINE":
            flags = [*parameter.opts, *parameter.secondary_opts]
            raise UsageError(f"{max(flags, key=len)} {why}; leave it out")
