"""What a real worker's log says of a task's life, line by line."""
