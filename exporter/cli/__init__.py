"""The command line.

`commands` lists the commands. Each command has a module: `define` adds its help and flags to a
parser, and one more function does the work. The modules import at their top only what the help
needs. What the work needs is imported where the work begins: importing aiohttp, pydantic and the
service takes most of a second of CPU, and a container runs `healthcheck` every 30 seconds.
"""
