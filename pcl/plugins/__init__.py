"""Plugins: files of other people that register kinds of pairs, encoders and losses under names of their own."""
