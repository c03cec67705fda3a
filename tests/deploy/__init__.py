"""What is in deploy/, looked at with the programs that would run it, and with linters."""
