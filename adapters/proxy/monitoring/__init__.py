"""Load of the machine and of the event loop: CPU, memory, network, GPUs, loop lag."""
