"""Where the stages of a table run: on this machine's cores or GPUs, or on the workers of a cluster."""
