"""What is imported once for many: runs and the workers of `--jobs` are forked from a process that imports this.

Belongs here: modules that `multiprocessing`'s fork server is told by name.
Does not belong here: anything that another module imports.
"""
