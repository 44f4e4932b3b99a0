"""The mode `export`: files of a finished run that give its predictions without this package."""
