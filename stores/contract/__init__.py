"""The parts of the contract that `testing.py` puts together. Imports pytest."""
