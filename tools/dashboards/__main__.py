"""Writes the dashboards in deploy/grafana/.

python -m tools.dashboards           write them
python -m tools.dashboards --check   exit 1 where one is not what the code says
"""

from __future__ import annotations

import sys
from pathlib import Path

from tools.dashboards import BOARDS

FOLDER = Path(__file__).parent.parent.parent / "deploy" / "grafana"


def outdated(name: str) -> str:
    """What to do about a file that is out of date."""
    return (
        f"deploy/grafana/{name} is out of date. It is written from tools/dashboards/:"
        " edit that, run `make docs`, and commit both."
    )


def main(arguments: list[str]) -> int:
    """Write or check the files."""
    status = 0
    for board in BOARDS:
        file = FOLDER / f"{board.uid}.json"
        if arguments != ["--check"]:
            file.write_text(board.text(), encoding="utf-8")
        elif not file.exists() or file.read_text(encoding="utf-8") != board.text():
            print(outdated(file.name), file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
