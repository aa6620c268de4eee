"""The command line: serving, a local cluster, and what operators ask of a running one."""
