"""The command line.

Each command is a module with `HELP`, `add_flags` and `run`. At its top a module imports only what
the help needs. `run` imports the rest: aiohttp, pydantic and the service take most of a second of
CPU, and a container runs `healthcheck` every 30 seconds.
"""
