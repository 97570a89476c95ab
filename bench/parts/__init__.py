"""What the benchmarks share: figures with their spread, a peer to compare with, a server in another process."""
