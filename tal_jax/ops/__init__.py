"""Pure functions on the arrays of one recording."""
