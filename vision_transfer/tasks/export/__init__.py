"""A finished run taken away: files that give its predictions without this package."""
