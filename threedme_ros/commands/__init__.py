"""The subcommands of `threedme`, a module each."""
