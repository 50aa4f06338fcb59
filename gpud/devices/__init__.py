"""GPUs as the machine has them: adapters that turn what a driver says into devices."""
