# SPDX-License-Identifier: Apache-2.0
"""What is kept: one directory per run with one SQLite database in it."""
