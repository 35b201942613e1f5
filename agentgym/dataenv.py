# SPDX-License-Identifier: Apache-2.0
"""Environments over data sets: rows from a local file or the Hugging Face hub, one task a row."""
