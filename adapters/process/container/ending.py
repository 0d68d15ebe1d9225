"""End of a container without its proxy: hooks as commands that need no launcher. Pure."""

from __future__ import annotations

from dataclasses import replace

from ....runtime.container import Container
from ....runtime.ports import Command, Ending, EndingStep
from . import arguments


def ending_of(container: Container, id_: str, ending: Ending) -> Ending:
    """Return *ending* with the commands that this machine runs for it.

    Args:
        container: The container.
        id_: Its id.
        ending: Commands of hooks have the environment of the container, and may run inside of it.
    """
    return replace(
        ending,
        before=tuple(_step(container, id_, step) for step in ending.before),
        stop=None if ending.stop is None else on_host(ending.stop),
        failed=tuple(_step(container, id_, step) for step in ending.failed),
        after=tuple(_step(container, id_, step) for step in ending.after),
    )


def _step(container: Container, id_: str, step: EndingStep) -> EndingStep:
    if step.command is None:
        return step
    command = step.command
    return replace(
        step, command=inside(container, id_, command) if step.is_inside else on_host(command)
    )


def on_host(command: Command) -> Command:
    """Return *command* for this machine.

    It gets no variables such as PATH, whose values are for programs in the container.
    """
    return replace(command, container=None, env=arguments.client_env(command.env))


def inside(container: Container, id_: str, command: Command) -> Command:
    """Return the client that runs *command* in the container and ends with its exit code."""
    argv = arguments.exec_argv(container, id_, command)
    return Command(argv=argv, env=arguments.client_env(command.env), label=command.label)
