"""The conformance suite: does a generator or suite keep what its contract promises? (``python -m harness check NAME``)"""
