"""What is behind the verbs of `./dev`: standard library only.

A package with this file, for a namespace package would give way to any ``tools`` that is installed.
"""
