"""What this program costs, against what one would use in its place: `make bench`."""
