"""The embedded world: a procedural renderer whose causes are known, its worlds, models and small datasets."""
