"""Command line: parse, call one function, print. No decisions live here, and nothing heavy is imported."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

import click

from opbench import __version__
from opbench.commands.count import count
from opbench.commands.env import env
from opbench.commands.index import index
from opbench.commands.kernels import kernels
from opbench.commands.listing import list_
from opbench.commands.networks import networks
from opbench.commands.report import report
from opbench.commands.run import run
from opbench.commands.schema import schema
from opbench.commands.show import show
from opbench.commands.verify import verify
from opbench.errors import MachineError, OpbenchError, SuiteError
from opbench.plain import one_line

INTERNAL_ERROR, INTERRUPTED = 6, 130
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

_EPILOG = """\b
Start here:
  opbench run suites/quickstart.yaml        measure, and see the table
  opbench list                              the operators
  opbench count involution --input 32x64x56x56   what it costs, without measuring
\b
Exit status: 0 all well; 2 usage or suite error; 5 some case wrong or failed;
6 the machine or opbench itself failed; 130 interrupted.
"""


class _InOrder(click.Group):
    """Lists the commands in the order one meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="opbench")
def cli() -> None:
    """What does a spatial operator cost, and what would another one cost in its place?

    opbench measures parameters, multiply-accumulates, latency and memory of convolution and of the operators that claim
    to beat it, under one protocol and in one set of units.
    """


for _command in (run, report, index, list_, networks, show, count, verify, kernels, env, schema):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit status."""
    sys.exit(_status(arguments))


def _status(arguments: Sequence[str] | None) -> int:
    try:
        return int(cli.main(args=arguments, prog_name="opbench", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _say("opbench: interrupted")
        return INTERRUPTED
    except SuiteError as error:
        # Bare lines, so that editors and log viewers recognise file:line:column.
        faults = len(str(error).splitlines())
        _say(f"{error}\nopbench: {faults} {'fault' if faults == 1 else 'faults'}; nothing was measured")
        return error.exit_status
    except OpbenchError as error:
        _say(f"opbench: {error}")
        return error.exit_status
    except (BrokenPipeError, SystemExit):
        # The reader of a pipe has gone, as `| head` does, and click leaves.
        _drop_output()
        return 0
    except Exception as error:
        if isinstance(error, OSError) and error.filename is None and error.errno in _NO_ROOM:
            with suppress(OSError):
                _drop_output()
            _say(f"opbench: cannot write: {error.strerror}")
            return MachineError.exit_status
        if "OPBENCH_DEBUG" in os.environ:
            traceback.print_exc()
        what = one_line(f"{type(error).__name__}: {error}")
        _say(f"opbench: internal error: {what}; please report it with the traceback that OPBENCH_DEBUG=1 shows")
        return INTERNAL_ERROR


def _drop_output() -> None:
    """Let what is left in the buffer go nowhere, lest the last flush complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(lines: str) -> None:
    """Print lines to standard error; what they quote is made harmless."""
    click.echo("\n".join(map(one_line, lines.split("\n"))), err=True)
