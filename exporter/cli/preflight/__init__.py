"""What a configuration will meet and cost, found out before it runs: `check --online`."""
