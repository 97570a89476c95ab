"""What tests, drills, demos and benches share: real servers on loopback, and the faults that are put between them."""
