"""System call numbers, names and signatures per architecture, as data."""
