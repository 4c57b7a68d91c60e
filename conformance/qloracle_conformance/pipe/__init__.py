"""Judging a program in any language: `qloracle gen OPERATION | program | qloracle judge OPERATION`."""
