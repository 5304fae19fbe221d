"""Shipped profiles (TOML)."""
