"""The container image: Dockerfile, lock and process 1."""
