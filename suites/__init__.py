"""The built-in suites; found through entry points like any plugin."""
