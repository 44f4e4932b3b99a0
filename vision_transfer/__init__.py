"""Transfer learning on small image data sets: freeze what need not change, and pay only for the rest."""
