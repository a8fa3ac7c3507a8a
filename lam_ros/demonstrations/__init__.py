"""Demonstrations: sealed episodes on disk, their verdict, and the aligned arrays that training reads."""
