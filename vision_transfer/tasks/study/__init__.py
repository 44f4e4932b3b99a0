"""Studies: several runs that share what they can, and what they say together."""
