"""Tests of Perl's sessions, which Pyramid applications read and change."""
