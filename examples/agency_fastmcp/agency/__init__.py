"""The agency's own code: it knows nothing of Milepost."""
