"""Finding, loading and validating data sets."""
