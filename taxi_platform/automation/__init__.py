"""What starts work: jobs, and runs from the command line."""
