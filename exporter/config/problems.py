"""What is wrong with a configuration or a command line."""

from __future__ import annotations


class ConfigError(Exception):
    """The configuration cannot be used: exit status 2.

    `problems`: one line each, with file, line, key and cure.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
