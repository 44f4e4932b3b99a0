"""Windows into a network: plain functions from arrays to arrays, and their drawing."""
