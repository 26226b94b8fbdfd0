"""A consumer group seen from outside: how far behind it is, and how many processes it needs."""
