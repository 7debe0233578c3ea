"""Networks as Flax (linen) modules; no other room imports flax."""
