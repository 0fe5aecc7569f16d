"""Perl's sessions, read and changed by Pyramid applications."""
