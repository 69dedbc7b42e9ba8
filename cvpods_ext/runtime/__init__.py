"""What every layer needs from the machine: files, processes, logging, progress."""
