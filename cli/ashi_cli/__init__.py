"""The `ashi` command, and the one-machine stack that `ashi demo` and `ashi broker` run."""
