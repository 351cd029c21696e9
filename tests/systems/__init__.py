"""The systems of docs/systems.md, each from its training form to the device."""
