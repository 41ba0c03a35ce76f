"""Tests of the bridge and the shipped tasks; a package, so that tests share `tests.servers` by its full name."""
