"""What `gpud` does beside serving: verbs that need no daemon, one module each."""
