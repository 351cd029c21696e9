"""Faults on purpose: failing calls, damaged files, signals, kills. Each must end in a clear error,
or in a right result, and leave nothing behind."""
