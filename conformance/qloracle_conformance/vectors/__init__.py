"""Test vectors: files that need no Python, with what every stage of every output may be, and the mistakes they hunt."""
