"""The program: it parses the command line and runs the command."""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
from collections.abc import Sequence

from exporter.cli.parsing import PROGRAM, parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program. Exit status: 0; 1 something failed at run time; 2 usage or configuration."""
    if sys.stderr is None:  # it was closed: a connection would get its number
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process
    options = parse(arguments)
    try:
        return int(options.run(options))
    except OSError as error:
        print(f"{PROGRAM}: {explain(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    except Exception as error:
        # Imported here: exporter.config imports pydantic, which not every command needs.
        from exporter.config.problems import ConfigError

        if not isinstance(error, ConfigError):
            raise
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return 2


_CURES = {
    errno.EADDRINUSE: "stop what has the port, or choose another one",
    errno.EADDRNOTAVAIL: "choose an address that this machine has, or :PORT for all of them",
    errno.EACCES: "allow it to this user; ports below 1024 need a right of their own",
    errno.ENOSPC: "make room on that disk",
    errno.EROFS: "choose a place that is not read-only",
    errno.EMFILE: "raise the limit of open files, ulimit -n",
    socket.EAI_NONAME: "see how the host is spelled, or write its address",
}


def explain(error: OSError) -> str:
    """One line: what failed, where, and what to do."""
    text = re.sub(r"^\[[Ee]rrno -?\d+\] ", "", error.strerror or str(error))
    if error.filename is not None:
        text = f"{error.filename}: {text}"
    cure = _CURES.get(error.errno) if error.errno is not None else None
    return f"{text}: {cure}" if cure else text


if __name__ == "__main__":
    sys.exit(main())
