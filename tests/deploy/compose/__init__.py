"""docker-compose.yml: what it says, and what it does."""
