"""The program: it parses the command line and runs the command."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from exporter.cli.os_errors import explain
from exporter.cli.parsing import PROGRAM, parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program. Exit status: 0; 1 something failed at run time; 2 usage or configuration."""
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


if __name__ == "__main__":
    sys.exit(main())
