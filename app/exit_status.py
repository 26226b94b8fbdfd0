"""How a program that runs until it is stopped says how it ended: to a supervisor, a pod's owner, a person."""

EXIT_DRAINED = 0
EXIT_FATAL = 1
EXIT_BAD_START = 2  # nothing was consumed; the same start will fail again
EXIT_DRAIN_DEADLINE = 3
EXIT_WATCHDOG = 4  # a client call did not return
