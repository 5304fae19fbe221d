"""The embedded world: a procedural renderer whose causes are known, its worlds, towers and small datasets."""
