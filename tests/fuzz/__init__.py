"""Fuzzing: functions that take any bytes and raise nothing but what is documented.

A target is a module with `target(data)`. It passes over the errors that the program documents and
expects; whatever else is raised is a defect. targets.py names them, corpus/ holds inputs of each.
"""
