"""The commands with which an installation is set up: backfill, doctor and provision."""
