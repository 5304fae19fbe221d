"""The built-in generators; found through entry points like any plugin."""
