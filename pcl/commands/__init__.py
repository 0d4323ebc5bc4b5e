"""What people run: one module a command."""
