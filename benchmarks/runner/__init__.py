"""What runs the contestants: the plan, the run loop, one run, and the machine that it takes place on."""
