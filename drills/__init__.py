"""The drills: real servers are killed and stopped at random points, and what is left is checked against the promise."""
