"""Models that need no key, one for each framework: each calls `request_refund` once, then repeats its result."""
