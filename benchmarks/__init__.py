"""The worker beside its peers, on one machine: `make bench`. See README.md in this folder."""
