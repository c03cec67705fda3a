"""`check --online`: what a configuration needs of its accounts, and what polling them will cost."""
