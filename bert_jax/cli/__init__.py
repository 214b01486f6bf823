"""The `bert-jax` command and what the programs' command lines share."""
