"""The commands: flags and help of each, and what it does. Each module has `add` and a command."""
