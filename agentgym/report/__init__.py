# SPDX-License-Identifier: Apache-2.0
"""Runs turned into text for people: tables, terminals, plain output."""
