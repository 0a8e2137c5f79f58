"""The application, and the sections of `mission9 --help`."""

from __future__ import annotations

from cyclopts import App, Group

from mission9._package import __version__

MAKE, USE, PROTECT, ELSE = map(Group.create_ordered, ("Make a result", "Use a result", "Protect data", "Else"))

app = App(
    name="mission9",
    help="""Turn folders of labelled images into MobileNetV2 features and a compact PCA space.

    To begin: `mission9 demo` needs neither images nor a network. Then: `mission9 run --input IMAGES --output RESULTS`.
    `mission9 COMMAND --help` describes a command, with examples.
    """,
    group_commands=USE,  # of commands that name no other
    version=__version__,
    version_flags="--version",
    help_flags=["--help", "-h"],
    suppress_keyboard_interrupt=False,  # main has its own word for it
)

app.register_install_completion_command(help="Teach your shell to complete mission9's commands and options.")
for _flag in ("--help", "--version", "--install-completion"):
    app[_flag].group = ELSE
