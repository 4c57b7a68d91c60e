"""The registered operations, one module for each part of the specification.

Every module has a function ``operations()`` that returns its operations in the order in which reports list them.
"""
